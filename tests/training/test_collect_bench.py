"""The benchmarks measure what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from configs.collect import CollectConfig
from envs.rendering import Renderer
from envs.tabletop.specs import SPECS
from envs.task import TaskSpec, make_task
from training.collect_bench import collection_ratio, expert_success, raw_frames_per_second


def test_collection_ratio() -> None:
    result = collection_ratio(0.0, "reach", CollectConfig(size=32))
    assert result["task"] == "reach"
    assert result["cameras"] == ["front"]
    assert result["steps"] > 50
    assert 0 < result["kept_share"] <= 1
    assert result["ratio"] == pytest.approx(result["collection_steps_per_second"] / result["raw_steps_per_second"])
    # No claim about this machine, only that neither side is left out: collection cannot be much faster than its parts.
    assert 0.1 < result["ratio"] < 1.5


def test_every_task_has_an_expert_that_succeeds() -> None:
    found = expert_success(3, tuple(SPECS))
    assert found == {task: {"episodes": 3, "successes": 3, "failed_seeds": []} for task in SPECS}


def test_an_expert_that_fails_is_told_by_its_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    make_expert, asked = TaskSpec.make_expert, []

    def make_lazy(spec: TaskSpec) -> Any:
        expert = make_expert(spec)

        def lazy(env: Any, info: dict[str, Any]) -> np.ndarray:
            if len(asked) < spec.horizon:  # as long as the first episode lasts
                asked.append(spec.name)
                return np.zeros(2, np.float32)
            action: np.ndarray = expert(env, info)
            return action

        return lazy

    monkeypatch.setattr(TaskSpec, "make_expert", make_lazy)
    assert expert_success(2, ("track",)) == {"track": {"episodes": 2, "successes": 1, "failed_seeds": [0]}}


def test_no_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="episodes 0 must be at least 1"):
        expert_success(0)


def test_raw_frames_are_drawn_by_one_camera_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    env: Any = make_task("track", cameras=("wrist", "front"), size=16).unwrapped
    env.reset(seed=0)
    draw, drawn = Renderer.draw, []

    def spy(self: Renderer, data: Any, camera: str, **kwargs: Any) -> np.ndarray:
        drawn.append(camera)
        return draw(self, data, camera, **kwargs)

    monkeypatch.setattr(Renderer, "draw", spy)
    monkeypatch.setattr(Renderer, "draw_with_boxes", None)
    rate = raw_frames_per_second(env, 0.2)
    env.close()
    assert set(drawn) == {"wrist"}
    assert 1 < rate * 0.2 <= len(drawn) - 1  # the first does not count
