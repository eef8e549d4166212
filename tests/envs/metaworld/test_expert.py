"""Meta-World's scripted policies demonstrate its tasks, and demonstrations are drawn only of what succeeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from configs.collect import CollectConfig
from envs.metaworld.env import LONGEST
from envs.metaworld.expert import expert
from envs.metaworld.specs import SPECS
from envs.rendering import Renderer
from envs.task import find_task, make_task
from training.collect import Demonstrator

Make = Callable[..., Any]
Play = Callable[[Any, int], dict[str, Any]]


def test_all_fifty_succeed(make: Make, play: Play) -> None:
    for name in SPECS:
        env = make(name)
        assert any(play(env, seed)["is_success"] for seed in range(2)), name
        _, info = env.reset(seed=2)
        state = info["privileged"]["state"].copy()
        first, again = expert(env, info), expert(env, info)  # asked twice, as by whoever labels what another one does
        np.testing.assert_array_equal(info["privileged"]["state"], state, err_msg=name)
        np.testing.assert_array_equal(first, again, err_msg=name)


def test_actions_are_cut_before_anybody_sees_them(make: Make) -> None:
    env = make("drawer-open")
    _, info = env.reset(seed=0)
    largest = 0.0
    for _ in range(60):
        action = expert(env, info)
        assert action.dtype == np.float32
        largest = max(largest, float(np.abs(action).max()))
        info = env.step(action)[4]
    assert largest == 1


def test_a_scout_changes_nothing_but_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, config = find_task("metaworld/push"), CollectConfig(cameras=("corner2",), size=16, noise=0.5)
    env = make_task(spec.name, cameras=config.cameras, size=config.size)
    scout = make_task(spec.name, cameras=(), size=config.size, labels=False)
    alone, scouted = Demonstrator(env, spec, config), Demonstrator(env, spec, config, scout)
    draw, drawn = Renderer.draw_with_boxes, []

    def spy(self: Renderer, *args: Any) -> Any:
        drawn.append(args)
        return draw(self, *args)

    monkeypatch.setattr(Renderer, "draw_with_boxes", spy)
    kept: Any = None
    failed = False
    for seed in range(20):
        drawn.clear()
        episode = scouted.demonstrate(seed)
        failed = failed or episode is None
        assert bool(drawn) == (episode is not None)
        kept = kept or episode
        if kept and failed:
            break
    assert failed
    assert kept.success
    again = alone.demonstrate(kept.seed)
    for field in fields(kept):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(kept, field.name))
    env.close()
    scout.close()


@pytest.mark.parametrize("name", ["door-open", "peg-insert-side", "stick-pull", "hammer", "plate-slide", "soccer"])
def test_looking_ahead_leaves_no_trace(name: str, make: Make) -> None:
    """The foreseen actions are those of an expert that acts from there, and the episode goes on to the bit."""
    asked, left_alone, followed = make(name), make(name), make(name)
    rng = np.random.default_rng(0)
    infos = [env.reset(seed=1)[1] for env in (asked, left_alone, followed)]
    for step in range(6):
        ahead = asked.foresee(expert, 4)
        assert ahead.shape == (4, 4)
        if step == 5:
            for action in ahead:
                np.testing.assert_array_equal(action, expert(followed, infos[2]))
                infos[2] = followed.step(action)[-1]
        action = np.clip(ahead[0] + rng.normal(0, 0.3, 4), -1, 1).astype(np.float32)
        if step < 5:
            infos = [env.step(action)[-1] for env in (asked, left_alone, followed)]
    state, untouched = (info["privileged"]["state"] for info in infos[:2])
    np.testing.assert_array_equal(state, untouched)
    for part in ("qpos", "qvel", "mocap_pos", "qacc_warmstart"):
        np.testing.assert_array_equal(getattr(asked.data, part), getattr(left_alone.data, part), err_msg=part)


def test_one_can_look_ahead_up_to_the_last_step(make: Make) -> None:
    env = make("reach", horizon=LONGEST)
    env.reset(seed=0)
    for _ in range(LONGEST - 1):
        env.step(np.zeros(4, np.float32))
    assert env.foresee(expert, 4).shape == (4, 4)
    assert env.step(np.zeros(4, np.float32))[2:4] == (False, True)
