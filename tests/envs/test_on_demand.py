"""Pictures that are drawn only when somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from envs.mujoco_task import MujocoTask
from envs.on_demand import BOXES, PICTURE, Moment, OnDemand
from envs.rollout import World, run
from envs.task import find_task, make_task

TASK = "metaworld/drawer-open"
CAMERAS = ("corner2_middle", "opposite")

Make = Callable[..., Any]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Any] = []

    def task(**settings: Any) -> Any:
        made.append(make_task(TASK, cameras=CAMERAS, size=32, **settings))
        return made[-1]

    yield task
    for env in made:
        env.close()


def test_a_camera_is_drawn_once_and_only_if_looked_at() -> None:
    drawn: list[str] = []

    def draw(camera: str) -> tuple[np.ndarray, ...]:
        drawn.append(camera)
        return np.zeros((8, 8, 3), np.uint8), np.zeros((2, 4))

    moment = Moment(("front", "wrist"), draw)
    pictures, boxes = moment.part(PICTURE), moment.part(BOXES)
    assert list(pictures) == ["front", "wrist"]
    assert len(pictures) == 2
    assert drawn == []
    assert pictures["wrist"].shape == (8, 8, 3)
    assert boxes["wrist"].shape == (2, 4)
    assert drawn == ["wrist"]
    assert pictures.get("side") is None
    moment.end()
    assert pictures["wrist"].shape == (8, 8, 3)
    with pytest.raises(RuntimeError, match="'front' was not drawn while it could be; look before the next step"):
        pictures["front"]


def test_it_shows_what_is_always_drawn_otherwise(make: Make) -> None:
    eager, lazy = make(), make(on_demand=True)
    for env in (eager, lazy):
        env.reset(seed=3)
    for step in range(6):
        action = np.array([0.5, -1, 0.2 * step, 1], np.float32)
        (seen, *_, info), (shown, *_, known) = eager.step(action), lazy.step(action)
        assert isinstance(seen["pixels"], dict)
        assert isinstance(shown["pixels"], OnDemand)
        if step % 2:
            continue
        for camera in CAMERAS:
            assert np.array_equal(seen["pixels"][camera], shown["pixels"][camera])
            for label in ("boxes", "visible"):
                assert np.array_equal(info["privileged"][label][camera], known["privileged"][label][camera])
    assert np.array_equal(seen["agent_pos"], shown["agent_pos"])


def test_what_is_past_cannot_be_drawn(make: Make) -> None:
    env = make(on_demand=True)
    seen, _ = env.reset(seed=3)
    env.step(np.zeros(4, np.float32))
    with pytest.raises(RuntimeError, match="look before the next step"):
        seen["pixels"]["opposite"]


def test_a_rollout_draws_what_its_actor_looks_at(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    env = make(on_demand=True)
    task = env
    while not isinstance(task, MujocoTask):
        task = task.env
    drawn: list[tuple[int, str]] = []
    draw = task._draw

    def watched(camera: str) -> Any:
        drawn.append((task.step_count, camera))
        return draw(camera)

    monkeypatch.setattr(task, "_draw", watched)

    class Peeping:
        def reset(self, worlds: Any) -> None:
            """Nothing to forget."""

        def act(self, worlds: list[World | None]) -> list[np.ndarray | None]:
            [world] = worlds
            assert world is not None
            if world.step % 100 == 0:
                assert world.observation["pixels"]["opposite"].any()
            return [np.zeros(4, np.float32)]

    run([env], [5], Peeping(), action_names=find_task(TASK).action_names)
    assert drawn == [(step, "opposite") for step in (0, 100, 200, 300)]
