"""What is recorded of environments that say where things are to go."""

from __future__ import annotations

import numpy as np

from configs.collect import CollectConfig
from envs.metaworld.instructions import texts
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


def test_a_share_of_the_demonstrations_is_told_the_other_thing() -> None:
    """In the order of the seeds, and with the labels of what was told."""
    env, spec = make_task(TASK, cameras=CAMERAS[:1], size=16), find_task(TASK)
    try:
        made = {
            share: Demonstrator(env, spec, CollectConfig(cameras=CAMERAS[:1], size=16, noise=0.2, counterfactual=share))
            for share in (0.0, 0.5, 1.0)
        }
        told = {share: [one.demonstrate(seed) for seed in range(4)] for share, one in made.items()}
    finally:
        env.close()
    words = {share: [e.instructions[0] for e in found if e is not None] for share, found in told.items()}
    opening, closing = (set(texts(name, "train")) for name in ("drawer-open", "drawer-close"))
    assert set(words[0.0]) <= opening
    assert set(words[1.0]) <= closing
    assert {text in opening for text in words[0.5]} == {True, False}
    for episode in told[1.0]:
        assert episode is not None
        assert episode.success
        np.testing.assert_array_equal(episode.goal_boxes, episode.boxes)


def test_a_task_without_another_thing_is_told_its_own() -> None:
    env, spec = make_task("metaworld/reach", cameras=(), size=16), find_task("metaworld/reach")
    try:
        config = CollectConfig(cameras=CAMERAS[:1], counterfactual=1.0)
        scenario = Demonstrator(env, spec, config)._scenario
        assert all(scenario(seed) is None for seed in range(5))
    finally:
        env.close()
