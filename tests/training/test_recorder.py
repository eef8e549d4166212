"""What is recorded of environments that say where things are to go."""

from __future__ import annotations

import numpy as np

from configs.collect import CollectConfig
from envs.task import find_task, make_task
from training.collect import Demonstrator

TASK = "metaworld/drawer-open"
CAMERAS = ("opposite", "corner2_middle")


def test_boxes_of_the_target_and_of_its_goal_are_those_of_each_step() -> None:
    env, spec = make_task(TASK, cameras=CAMERAS, size=32), find_task(TASK)
    again = make_task(TASK, cameras=CAMERAS, size=32)
    try:
        episode = Demonstrator(env, spec, CollectConfig(cameras=CAMERAS, size=32, noise=0.2)).demonstrate(4)
        assert episode is not None
        assert episode.goal_boxes is not None
        assert episode.goal_visible is not None
        assert episode.boxes is not None
        assert episode.goal_boxes.shape == episode.boxes.shape == (len(episode), 2, 1, 4)
        _, info = again.reset(seed=4)
        for step in range(10):
            known = info["privileged"]
            for v, camera in enumerate(CAMERAS):
                np.testing.assert_array_equal(episode.boxes[step, v, 0], known["boxes"][camera][known["target"]])
                np.testing.assert_array_equal(episode.goal_boxes[step, v, 0], known["boxes"][camera][known["goal"]])
                assert episode.goal_visible[step, v, 0] == known["visible"][camera][known["goal"]]
            *_, info = again.step(episode.executed[step])
    finally:
        env.close()
        again.close()
    assert (episode.goal_boxes != episode.boxes).any()
