"""Pictures and boxes of the tasks, against an independent renderer and a plain loop over its pixels."""

from __future__ import annotations

import gc
from collections.abc import Callable

import mujoco
import numpy as np
import pytest

from envs.rendering import Renderer
from envs.segments import MIN_VISIBLE_PIXELS
from envs.tabletop.arm import MAX_YAW, WORKSPACE
from envs.tabletop.env import TabletopEnv
from envs.tabletop.objects import SLOTS
from envs.tabletop.scene import BACKDROP_GROUP, CAMERAS, HIDDEN_GROUP, slot_geoms

MakeEnv = Callable[..., TabletopEnv]
Project = Callable[[TabletopEnv, np.ndarray], np.ndarray]


def reference(env: TabletopEnv, camera: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture, boxes and pixel counts from MuJoCo's own renderer, one pixel after the other."""
    option = mujoco.MjvOption()
    option.geomgroup[HIDDEN_GROUP] = 0
    with mujoco.Renderer(env.model, env.size, env.size) as renderer:
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[flag] = 0
        renderer.update_scene(env.data, camera, option)
        picture = renderer.render().copy()
        renderer.enable_segmentation_rendering()
        renderer.update_scene(env.data, camera, option)
        segments = renderer.render().copy()
    slot_of = {geom: slot for slot in range(SLOTS) for geom in slot_geoms(env.model, slot)}
    seen: dict[int, list[tuple[int, int]]] = {slot: [] for slot in range(SLOTS)}
    for row in range(env.size):
        for column in range(env.size):
            number, kind = segments[row, column]
            if kind == mujoco.mjtObj.mjOBJ_GEOM and int(number) in slot_of:
                seen[slot_of[int(number)]].append((row, column))
    boxes, counts = np.zeros((SLOTS, 4)), np.array([len(seen[slot]) for slot in range(SLOTS)])
    for slot in range(SLOTS):
        if counts[slot] >= MIN_VISIBLE_PIXELS:
            rows, columns = np.array(seen[slot]).T
            top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
            boxes[slot] = np.array([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]) / env.size
    return picture, boxes, counts


@pytest.mark.parametrize(
    ("task", "size"), [("reach", 64), ("track", 48), ("track_motion", 96), ("track_occlusion", 64), ("track_event", 64)]
)
def test_pictures_and_boxes_against_an_independent_renderer(task: str, size: int, make_env: MakeEnv) -> None:
    env = make_env(task, size=size, randomise=size == 48)
    rng = np.random.default_rng(0)
    compared = exact = 0
    for seed in range(2):
        observation, info = env.reset(seed=seed)
        for _ in range(3):
            for camera in CAMERAS:
                picture, boxes, counts = reference(env, camera)
                secret, shown = info["privileged"], len(env.layout.objects)
                np.testing.assert_array_equal(observation["pixels"][camera], picture)
                # Where an object meets the table, which the labels leave out, one line of pixels may belong to either.
                off = np.abs((secret["boxes"][camera] - boxes)[:shown]).max(axis=1) * size
                assert off.max() <= 1 + 1e-3
                compared += shown
                exact += int(np.sum(off < 1e-3))
                np.testing.assert_array_equal(secret["visible"][camera], counts >= MIN_VISIBLE_PIXELS)
                assert not counts[shown:].any()
                assert not secret["boxes"][camera][shown:].any()
            for _ in range(8):
                observation, *_, info = env.step(rng.uniform(-1, 1, len(env.action_names)))
    assert exact >= 0.9 * compared


@pytest.mark.parametrize("camera", CAMERAS)
def test_the_backdrop_is_never_in_front_of_an_object(camera: str, make_env: MakeEnv) -> None:
    env = make_env("reach", labels="none")
    rng = np.random.default_rng(0)
    for seed in range(25):
        env.reset(seed=seed)
        for _ in range(4):
            env._arm.reset(rng.uniform(*WORKSPACE), yaw=rng.uniform(-MAX_YAW, MAX_YAW))
            renderer = env._pictures.observed()
            drawn = []
            for with_backdrop in (0, 1):
                renderer._segments_option.geomgroup[BACKDROP_GROUP] = with_backdrop
                renderer.forget_episode()
                drawn.append(renderer.draw_with_boxes(env.data, camera)[1:])
            renderer._segments_option.geomgroup[BACKDROP_GROUP] = 0
            (boxes, counts), (boxes_with, counts_with) = drawn
            assert np.abs(boxes - boxes_with).max() * env.size <= 1 + 1e-3
            assert np.abs(counts - counts_with).max() <= 4


def test_boxes_are_around_the_object_they_are_of(make_env: MakeEnv, project: Project) -> None:
    env = make_env("track", cameras=("front",))
    for seed in range(5):
        _, info = env.reset(seed=seed)
        secret = info["privileged"]
        for index in np.flatnonzero(secret["visible"]["front"]):
            box, place = secret["boxes"]["front"][index], secret["positions"][index]
            if np.hypot(*(place[:2] - secret["hand"][:2])) > 0.15:  # the arm hides nothing of it
                assert np.abs(box[:2] - project(env, place)).max() < 0.03
                assert np.all((box[:2] - box[2:] / 2 >= 0) & (box[:2] + box[2:] / 2 <= 1))


def test_pictures_show_the_moment_they_are_taken_in(make_env: MakeEnv) -> None:
    env = make_env("reach")
    env.reset(seed=0)
    for _ in range(5):
        seen, *_ = env.step(np.array([1.0, 1.0, -1.0]))
    mujoco.mj_forward(env.model, env.data)
    for camera in CAMERAS:
        np.testing.assert_array_equal(env.picture(camera, env.size), seen["pixels"][camera])


def test_a_hidden_object_has_no_box(make_env: MakeEnv) -> None:
    env = make_env("track", cameras=("front",))
    env.reset(seed=0)
    env._slots.positions[:, 1, :2] = (5.0, 5.0)
    _, *_, info = env.step(np.zeros(2))
    secret = info["privileged"]
    assert not secret["visible"]["front"][1]
    np.testing.assert_array_equal(secret["boxes"]["front"][1], 0.0)
    assert secret["visible"]["front"][[0, 2, 3]].all()


def test_labels_do_not_change_the_picture(make_env: MakeEnv) -> None:
    with_boxes, without = make_env("track"), make_env("track", labels="none")
    with_boxes.reset(seed=0), without.reset(seed=0)
    for _ in range(3):
        left, right = with_boxes.step(np.ones(2))[0], without.step(np.ones(2))[0]
        for camera in CAMERAS:
            np.testing.assert_array_equal(left["pixels"][camera], right["pixels"][camera])


def test_the_two_cameras_see_different_things_and_the_wrist_moves_with_the_hand(make_env: MakeEnv) -> None:
    env = make_env("reach")
    before, _ = env.reset(seed=0)
    assert not np.array_equal(before["pixels"]["front"], before["pixels"]["wrist"])
    for _ in range(10):
        after = env.step(np.array([0.6, 0.6, 0.0]))[0]
    changed = {name: np.mean(after["pixels"][name] != before["pixels"][name]) for name in CAMERAS}
    assert changed["wrist"] > 0.3 > changed["front"] > 0


def test_environments_side_by_side_do_not_disturb_each_other(make_env: MakeEnv) -> None:
    alone = make_env("track")
    alone.reset(seed=0)
    expected = [alone.step(np.ones(2))[0]["pixels"] for _ in range(4)]
    one, two = make_env("track"), make_env("reach", size=32)
    one.reset(seed=0), two.reset(seed=1)
    for index, pixels in enumerate(expected):
        seen = one.step(np.ones(2))[0]["pixels"]
        for camera in CAMERAS:
            np.testing.assert_array_equal(seen[camera], pixels[camera])
        if index == 1:
            two.step(np.zeros(3))
        if index == 2:
            two.close()


def test_an_environment_that_is_dropped_frees_its_own_context_only(make_env: MakeEnv) -> None:
    kept = make_env("track")
    first, _ = kept.reset(seed=0)
    dropped = type(kept)()
    dropped.reset(seed=1)
    del dropped
    gc.collect()
    again, _ = kept.reset(seed=0)
    np.testing.assert_array_equal(again["pixels"]["front"], first["pixels"]["front"])
    np.testing.assert_array_equal(again["pixels"]["wrist"], first["pixels"]["wrist"])


def test_closing_twice_and_going_on(make_env: MakeEnv) -> None:
    env = make_env("track", render_mode="rgb_array")
    first, _ = env.reset(seed=0)
    env.render()
    env.close()
    env.close()
    again, _ = env.reset(seed=0)
    np.testing.assert_array_equal(again["pixels"]["front"], first["pixels"]["front"])
    renderer = Renderer(env.model, 16)
    renderer.close()
    renderer.close()


def test_the_renderer_has_a_name(make_env: MakeEnv) -> None:
    env = make_env("track")
    assert len(env.gl_renderer) > 3
