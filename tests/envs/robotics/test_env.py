"""Scenes, pictures, episodes and labels of Fetch's tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from configs.seeds import split_seed
from envs.robotics.env import BACKDROP, BLOCK, HANDLE, HIDDEN, MARKER
from envs.robotics.expert import expert
from envs.robotics.fetch import Fetch
from envs.robotics.specs import CAMERAS, HORIZON, SPECS, TOLERANCE

Make = Callable[..., Any]
Play = Callable[..., dict[str, Any]]
Differences = Callable[[Any, Any], list[str]]

NAMES = sorted(SPECS)
WITH_BLOCK = ("push", "pick-and-place")
FAR = ("left", "right", "front")  # cameras that stand still
STILL = np.zeros(4, np.float32)


def actions(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, 4)).astype(np.float32)


# Seeds.


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_bytes_whatever_came_before(name: str, make: Make, differences: Differences) -> None:
    fresh, used = (make(name, cameras=("left",)) for _ in range(2))
    used.reset(seed=7)
    for action in actions(15):
        used.step(action)
    assert differences(fresh.reset(seed=split_seed("test", 3)), used.reset(seed=split_seed("test", 3))) == []
    for action in actions(6):
        assert differences(fresh.step(action), used.step(action)) == []
    np.testing.assert_array_equal(fresh.data.qpos, used.data.qpos)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_beyond_32_bits_are_all_used(name: str, make: Make) -> None:
    env = make(name)
    aims = [env.reset(seed=seed)[1]["privileged"]["aim"].tobytes() for seed in (5, 5 + 2**32, 5 + 2**64, 6)]
    assert len(set(aims)) == 4
    assert env.reset()[1]["privileged"]["aim"].tobytes() not in aims


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_done_before_anything_was_done(name: str, make: Make) -> None:
    env = make(name)
    redrawn = 0
    for seed in range(150):
        _, info = env.reset(seed=seed)
        known = info["privileged"]
        assert not info["is_success"]
        assert np.linalg.norm(known.get("block", known["hand"]) - known["aim"]) > TOLERANCE
        env.unwrapped.reset(seed=seed)
        redrawn += not np.array_equal(env.unwrapped.goal, known["aim"])
    assert 0 < redrawn < 20
    env.reset(seed=0)
    for _ in range(10):
        info = env.step(STILL)[4]
    assert not info["is_success"]


# What is seen, and what is not.


@pytest.mark.parametrize("name", NAMES)
def test_proprioception_tells_nothing_about_the_scene(name: str, make: Make) -> None:
    one, other = make(name), make(name)
    (first, known), (second, known_other) = one.reset(seed=1), other.reset(seed=2)
    known, known_other = known["privileged"], known_other["privileged"]
    assert set(first) == {"pixels", "agent_pos", "instruction"}
    assert not np.allclose(known["aim"], known_other["aim"])
    for action in (None, *actions(3)):
        if action is not None:
            action[2] = abs(action[2])  # up, away from the block
            first, second = one.step(action)[0], other.step(action)[0]
        np.testing.assert_allclose(first["agent_pos"], second["agent_pos"], atol=1e-6)
    np.testing.assert_allclose(first["agent_pos"][:3], one.data.site("robot0:grip").xpos, atol=1e-6)


def test_the_opening_is_that_of_the_fingers(make: Make) -> None:
    env = make("pick-and-place")
    assert env.reset(seed=0)[0]["agent_pos"][3] == pytest.approx(0, abs=1e-3)
    for _ in range(8):
        seen = env.step(np.array([0, 0, 0, 1], np.float32))[0]
    fingers = [env.data.body(f"robot0:{side}_gripper_finger_link").xpos for side in "lr"]
    assert seen["agent_pos"][3] == pytest.approx(np.linalg.norm(fingers[0] - fingers[1]) - 2 * 0.0159, abs=1e-3)
    assert seen["agent_pos"][3] > 0.08


@pytest.mark.parametrize("name", NAMES)
def test_the_marker_is_drawn_where_the_goal_is(name: str, make: Make) -> None:
    env = make(name, cameras=FAR, size=96)
    seen_by = dict.fromkeys(FAR, 0)
    for seed in range(8):
        known = env.reset(seed=seed)[1]["privileged"]
        np.testing.assert_allclose(env.data.site("target0").xpos, known["aim"], atol=1e-9)
        np.testing.assert_array_equal(known["aim"], env.unwrapped.goal)
        for camera in FAR:
            if not known["visible"][camera][known["goal"]]:
                continue
            seen_by[camera] += 1
            place = np.array(env.in_picture(camera, known["aim"]))
            middle = known["boxes"][camera][known["goal"], :2]
            assert (np.abs(place - middle) < 0.04).all()
            assert ((place > 0.02) & (place < 0.98)).all()
            pixel = env.picture(camera, 96)[tuple((middle[::-1] * 96).astype(int))].astype(int)
            assert pixel[0] > 2 * pixel[1]  # red, as nothing else is
    assert min(seen_by.values()) >= 4
    env.step(np.ones(4, np.float32))
    np.testing.assert_allclose(env.data.site("target0").xpos, env.unwrapped.goal, atol=1e-9)


def test_all_that_goals_can_be_is_in_the_pictures(make: Make) -> None:
    env = make("pick-and-place", cameras=FAR)
    env.reset(seed=0)
    start = env.unwrapped.initial_gripper_xpos
    for corner in np.ndindex(2, 2, 2):
        place = np.array([*(start[:2] + 0.15 * (2 * np.array(corner[:2]) - 1)), (0.4, 0.89)[corner[2]]])
        for camera in FAR:
            x, y = env.in_picture(camera, place)
            assert 0.02 < x < 0.98
            assert 0.02 < y < 0.98


def test_two_cameras_look_from_the_sides(make: Make) -> None:
    """What is farther along the one camera's line of sight is to the side in the other one."""
    env = make("reach", cameras=("left", "right"))
    env.reset(seed=0)
    place, away = np.array([1.34, 0.75, 0.5]), np.array([0.1, 0.1, 0])
    left, right = ([env.in_picture(camera, place + step)[0] for step in (0, away)] for camera in ("left", "right"))
    assert abs(left[1] - left[0]) < 0.02
    assert abs(right[1] - right[0]) > 0.1


def test_the_hands_camera_sees_what_the_fingers_hold(make: Make) -> None:
    env = make("pick-and-place", cameras=("gripper",), size=48)
    _, info = env.reset(seed=split_seed("test", 0))
    while not np.linalg.norm(info["privileged"]["hand"] - info["privileged"]["block"]) < 0.02:
        info = env.step(expert(env, info))[4]
    box = info["privileged"]["boxes"]["gripper"][0]
    assert 0.3 < box[0] < 0.7
    assert box[2] * box[3] > 0.1


def test_the_cross_that_pulls_the_hand_is_not_drawn(make: Make) -> None:
    env = make("push", cameras=FAR, size=64)
    body = env.model.body(HANDLE)
    geoms = np.flatnonzero(env.model.geom_bodyid == body.id)
    assert len(geoms) == 4
    assert (env.model.geom_group[geoms] == HIDDEN).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_backdrop_is_never_in_front_of_a_thing(name: str, make: Make) -> None:
    env, whole = (make(name, cameras=CAMERAS, size=48) for _ in range(2))
    assert (env.model.geom_group == BACKDROP).sum() == 7
    whole.backdrop_groups = ()
    (_, info), (_, other) = env.reset(seed=3), whole.reset(seed=3)
    for _ in range(6):
        for camera in CAMERAS:
            boxes = (known["privileged"]["boxes"][camera] for known in (info, other))
            np.testing.assert_array_equal(*boxes)
        action = expert(env, info)
        info, other = env.step(action)[4], whole.step(action)[4]
        if info["is_success"]:
            break


def test_the_first_picture_is_of_the_scene_as_it_is(make: Make) -> None:
    env = make("push", cameras=("left",))
    env.reset(seed=0)
    seen, _ = env.reset(seed=1)
    mujoco.mj_forward(env.model, env.data)
    np.testing.assert_array_equal(seen["pixels"]["left"], env.picture("left", 32))


# Episodes.


@pytest.mark.parametrize("name", NAMES)
def test_the_first_success_of_the_environments_own_ends_the_episode(name: str, make: Make) -> None:
    env = make(name)
    _, info = env.reset(seed=split_seed("test", 0))
    terminated = False
    while not terminated:
        assert not info["is_success"]
        assert not env._fetch.success
        _, reward, terminated, truncated, info = env.step(expert(env, info))
        assert not truncated
    assert info["is_success"]
    assert env._fetch.success
    assert reward == 1
    env._fetch.success = False  # as after a step in which it no longer holds
    env.note()
    assert env.success()


def test_success_is_what_the_environment_says(installed: None) -> None:
    env = Fetch("push")
    env.reset(seed=0)
    for action in actions(20):
        info = env.step(action)[4]
        assert env.success == bool(info["is_success"]) == bool(np.linalg.norm(env.block - env.goal) < TOLERANCE)  # type: ignore[operator]


def test_time_is_up_at_the_horizon(make: Make) -> None:
    env = make("reach")
    env.reset(seed=0)
    ends = [env.step(STILL)[2:4] for _ in range(HORIZON)]
    assert ends == [(False, False)] * (HORIZON - 1) + [(False, True)]


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")  # a task is a wrapper
@pytest.mark.filterwarnings("ignore:.*Box observation space (m|is -|is inf)")  # where the hand can be has no bounds
def test_gymnasium_finds_nothing_to_say(make: Make) -> None:
    check_env(make("push", cameras=("left",)), skip_render_check=True)


# Words for the other thing in the scene.


def reach(env: Any, info: dict[str, Any]) -> np.ndarray:
    """Brings the hand to the marker, whatever the task is."""
    known = info["privileged"]
    return np.array([*np.clip(5 * (known["aim"] - known["hand"]), -1, 1), 0], np.float32)


@pytest.mark.parametrize("name", WITH_BLOCK)
def test_who_reaches_did_what_the_other_words_say_and_who_moves_the_block_did_not(
    name: str, make: Make, play: Play
) -> None:
    env = make(name)
    assert env.things == (BLOCK, MARKER)
    for seed in range(5):
        assert not play(env, seed, reach)["is_success"]
        assert env.judge(1)
        assert not env.judge(0)
        assert play(env, seed)["is_success"]
        assert env.judge(0)
        assert not env.judge(1)


def test_the_hand_that_is_at_the_marker_from_the_start_has_to_stay(make: Make) -> None:
    env = make("push")
    seeds = (seed for seed in range(100) if env.reset(seed=seed) and env.judge(1))
    next(seeds)
    env.step(STILL)
    assert env.judge(1)
    for _ in range(8):
        env.step(np.array([0, 0, 1, 0], np.float32))
    assert not env.judge(1)


def test_reach_has_no_other_words(make: Make) -> None:
    env = make("reach")
    assert env.things == (MARKER,)
    assert not hasattr(env, "counterfactual")
    assert not hasattr(env, "judge")


@pytest.mark.parametrize("name", NAMES)
def test_labels_say_where_it_is_to_go(name: str, make: Make) -> None:
    env = make(name)
    known = env.reset(seed=0)[1]["privileged"]
    assert env.things[known["goal"]] == MARKER
    assert known["target"] == 0
    assert ("block" in known) == (name in WITH_BLOCK)
