"""What LeRobot looks for in an environment is there, and a vector environment passes it on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from eval.lerobot_plugin.world import ENV_ID


@pytest.fixture
def worlds(foreign: Path) -> Iterator[SyncVectorEnv]:
    """Two of somebody's task, side by side, as `lerobot-eval` makes them."""

    def make() -> gymnasium.Env[Any, Any]:
        return gymnasium.make(ENV_ID, task="dots/plain", cameras=("top",), size=32, task_module=str(foreign))

    made = SyncVectorEnv([make, make], autoreset_mode=AutoresetMode.SAME_STEP)
    yield made
    made.close()


def test_an_episode(worlds: SyncVectorEnv) -> None:
    seen, _ = worlds.reset(seed=[3, 4])
    assert seen["pixels"]["top"].shape == (2, 32, 32, 3)
    assert seen["agent_pos"].shape == (2, 2)
    assert hasattr(worlds.envs[0], "task_description")
    assert {*worlds.call("task_description")} <= {"go to the red dot", "go to the green dot"}
    assert worlds.call("task") == ("dots/plain", "dots/plain")
    assert worlds.call("_max_episode_steps") == (12, 12)
    assert worlds.unwrapped.metadata["render_fps"] == 5
    ended, told = False, {}
    for _ in range(12):
        assert not ended
        _, _, terminated, truncated, told = worlds.step(np.zeros((2, 2), np.float32))
        ended = bool((terminated | truncated).all())
    assert ended
    assert told["final_info"]["is_success"].tolist() == [False, False]
    assert worlds.envs[0].render().shape == (32, 32, 3)


def test_actions_are_between_minus_one_and_one(worlds: SyncVectorEnv) -> None:
    """The task's own go from -2 to 3: the middle is half a unit to the right, which is one pixel."""
    before, _ = worlds.reset(seed=[3, 4])
    here = before["agent_pos"].copy()
    after, *_ = worlds.step(np.zeros((2, 2), np.float32))
    assert np.allclose(after["agent_pos"], here + 1.0, atol=1e-5)
    assert worlds.single_action_space == gymnasium.spaces.Box(-1, 1, (2,), np.float32)
