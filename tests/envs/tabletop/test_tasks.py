"""What every registered task promises: Gymnasium's API, seeds, instructions, refusals, and no leak to the policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from configs.collect import SIZES as PICTURE_SIZES
from envs.gl import choose_gl_backend
from envs.tabletop.env import TabletopEnv
from envs.tabletop.events import EVENTS, read_event
from envs.tabletop.instructions import Referent, read_object
from envs.tabletop.objects import COLOURS, HELD_OUT_COMBINATIONS, SHAPES, SIZES, SLOTS, TableObject
from envs.tabletop.scene import PARKED, load_scene, scene_renderer, show_objects
from envs.tabletop.tasks.track_motion import GROUPS, read_motion
from envs.task import find_task

MakeEnv = Callable[..., TabletopEnv]
Differences = Callable[[Any, Any], list[str]]

SCENES = 200


def actions(env: TabletopEnv, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, len(env.action_names))).astype(np.float32)


def referent_of(env: TabletopEnv, text: str) -> Referent:
    if env.task == "track_event":
        return read_event(text)
    return Referent(motion=read_motion(text).motion) if env.task == "track_motion" else read_object(text)


# Gymnasium's API.


def test_check_env_is_clean(task: str) -> None:
    env = gymnasium.make(find_task(task).env_id)
    check_env(env.unwrapped)
    env.close()


@pytest.mark.parametrize("settings", [{}, {"cameras": ("wrist",), "size": 48}, {"labels": "none", "randomise": True}])
def test_spaces(task: str, settings: dict[str, Any], make_env: MakeEnv) -> None:
    env = make_env(task, **settings)
    observation, info = env.reset(seed=0)
    assert set(observation) == {"pixels", "agent_pos", "instruction"}
    for action in actions(env, 10):
        assert observation in env.observation_space
        assert set(observation["pixels"]) == set(env.cameras)
        assert set(info) == {"is_success", "stable", "privileged"}
        assert set(info["privileged"]["boxes"]) == (set(env.cameras) if env.labels == "boxes" else set())
        observation, reward, *_, info = env.step(action)
        assert reward == float(info["is_success"])


def test_rendering(task: str, make_env: MakeEnv) -> None:
    env = make_env(task, render_mode="rgb_array", size=32)
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (256, 256, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 10
    with pytest.raises(ValueError, match="rgb_array"):
        make_env(task).render()


def test_rendering_before_reset_is_refused(make_env: MakeEnv) -> None:
    env = make_env("track", render_mode="rgb_array")
    with pytest.raises(ValueError, match=r"^render\(\) was called before reset\(\); call reset\(\) first$"):
        env.render()
    env.reset(seed=0)
    assert env.render().std() > 10


@pytest.mark.parametrize("size", PICTURE_SIZES)
def test_the_smallest_and_the_largest_picture_are_of_the_same_scene(size: int, make_env: MakeEnv) -> None:
    seen, _ = make_env("track", cameras=("front",), size=size, labels="none").reset(seed=0)
    usual, _ = make_env("track", cameras=("front",), labels="none").reset(seed=0)
    mean = [pixels["pixels"]["front"].mean(axis=(0, 1)) for pixels in (seen, usual)]
    assert seen["pixels"]["front"].shape == (size, size, 3)
    np.testing.assert_allclose(*mean, atol=5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cameras": ("top",)}, "front, wrist"),
        ({"cameras": ("front", "front")}, "each once"),
        ({"size": PICTURE_SIZES[0] - 1}, "between 16 and 512"),
        ({"size": PICTURE_SIZES[1] + 1}, "between 16 and 512"),
        ({"labels": "masks"}, "'boxes' or 'none'"),
        ({"render_mode": "human"}, "'rgb_array'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str, make_env: MakeEnv) -> None:
    with pytest.raises(ValueError, match=message):
        make_env("track", **settings)


# Seeds.


@pytest.mark.parametrize("randomise", [False, True])
def test_same_seed_same_bytes_whatever_came_before(
    task: str, randomise: bool, make_env: MakeEnv, differences: Differences
) -> None:
    fresh, used = make_env(task, randomise=randomise), make_env(task, randomise=randomise)
    used.reset(seed=1)
    for action in actions(used, 30, seed=1):
        used.step(action)
    assert differences(fresh.reset(seed=5), used.reset(seed=5)) == []
    for action in actions(fresh, 25):
        left, right = fresh.step(action), used.step(action)
        assert differences(left[0], right[0]) == []
        assert differences(left[4], right[4]) == []
        assert left[1:4] == right[1:4]
    # Without a seed the generator goes on, the same way.
    assert differences(fresh.reset(), used.reset()) == []


def test_different_seeds_differ(task: str, make_env: MakeEnv) -> None:
    env = make_env(task)
    starts = [env.reset(seed=seed) for seed in range(6)]
    assert len({observation["pixels"]["front"].tobytes() for observation, _ in starts}) == 6
    assert len({observation["agent_pos"].tobytes() for observation, _ in starts}) == 6
    assert len({observation["instruction"] for observation, _ in starts}) > 3
    first = env.reset(seed=0)[0]["pixels"]["front"]
    assert not np.array_equal(env.reset()[0]["pixels"]["front"], first)


def test_observations_are_not_reused(task: str, make_env: MakeEnv) -> None:
    env = make_env(task)
    kept, info = env.reset(seed=0)
    copies = (kept["pixels"]["front"].copy(), kept["agent_pos"].copy(), info["privileged"]["positions"].copy())
    for action in actions(env, 3):
        env.step(action)
    for array, copy in zip(
        (kept["pixels"]["front"], kept["agent_pos"], info["privileged"]["positions"]), copies, strict=True
    ):
        np.testing.assert_array_equal(array, copy)


# Instructions and scenes.


def layouts(env: TabletopEnv, combinations: Any = "train", count: int = SCENES) -> list[Any]:
    """Layouts of many seeds, without drawing any."""
    found = []
    for seed in range(count):
        env.np_random = np.random.default_rng(seed)
        found.append(env.sample_layout(combinations, None))
    return found


def test_the_instruction_singles_out_the_target(task: str, make_env: MakeEnv) -> None:
    env = make_env(task, cameras=(), labels="none", size=16)
    for seed in range(40):
        observation, info = env.reset(seed=seed, options={"phrasing": ("train", "held_out")[seed % 2]})
        meant = [
            i for i, words in enumerate(env.layout.referents) if words == referent_of(env, observation["instruction"])
        ]
        assert meant == [info["privileged"]["target"]]
        assert env.task_description == observation["instruction"]


def test_a_counterfactual_means_another_object_of_the_scene(task: str, make_env: MakeEnv) -> None:
    env = make_env(task, cameras=(), labels="none", size=16)
    rng = np.random.default_rng(0)
    for seed in range(40):
        env.reset(seed=seed)
        before = env.np_random.bit_generator.state
        text, index = env.counterfactual("held_out" if seed % 2 else "train", rng)
        assert env.np_random.bit_generator.state == before
        assert index != env.layout.target
        assert referent_of(env, text) == env.layout.referents[index]
        assert text in env.observation_space["instruction"]
        assert env.instruction != text


def test_instructions_fit_the_text_space(task: str, make_env: MakeEnv) -> None:
    env = make_env(task, cameras=(), labels="none", size=16)
    space = env.observation_space["instruction"]
    rng = np.random.default_rng(0)
    for seed in range(40):
        env.reset(seed=seed)
        for index, words in enumerate(env.layout.referents):
            for phrasing in ("train", "held_out"):
                if words is not None:
                    assert all(env.instruction_for(index, phrasing, rng) in space for _ in range(10))


def test_neither_colour_nor_shape_alone_says_which(make_env: MakeEnv) -> None:
    for task in ("reach", "track", "track_occlusion", "track_event"):
        for layout in layouts(make_env(task, cameras=()), count=80):
            target = layout.objects[layout.target]
            assert len(layout.objects) == 4
            assert len({o.name for o in layout.objects}) == 4
            assert sum(o.colour == target.colour for o in layout.objects) == 2
            assert sum(o.shape == target.shape for o in layout.objects) == 2


def test_objects_told_apart_by_motion_look_the_same(make_env: MakeEnv) -> None:
    scenes = layouts(make_env("track_motion", cameras=()))
    assert all(len(set(layout.objects)) == 1 for layout in scenes)
    counts = np.bincount([len(layout.objects) for layout in scenes], minlength=4)
    assert counts[2] + counts[3] == len(scenes)
    assert min(counts[2], counts[3]) > 0.35 * len(scenes)
    named = {layout.referents[layout.target].motion for layout in scenes}
    assert named == {motion for group in GROUPS for motion in group[:2]}


def test_held_out_combinations_stay_out_of_training_scenes(task: str, make_env: MakeEnv) -> None:
    env = make_env(task, cameras=())

    def pairs(combinations: str, count: int) -> list[set[tuple[str, str]]]:
        return [{(o.colour, o.shape) for o in layout.objects} for layout in layouts(env, combinations, count)]

    train = set.union(*pairs("train", SCENES))
    assert not train & HELD_OUT_COMBINATIONS
    assert train == {(c, s) for c in COLOURS for s in SHAPES} - HELD_OUT_COMBINATIONS
    targets = {(t.colour, t.shape) for layout in layouts(env, "held_out", 80) for t in [layout.objects[layout.target]]}
    assert targets == HELD_OUT_COMBINATIONS
    assert set.union(*pairs("all", 120)) > train


def test_held_out_words_occur_in_training(make_env: MakeEnv) -> None:
    # A held-out combination is new as a combination only: its colour and its shape have been seen.
    objects = [o for layout in layouts(make_env("track", cameras=())) for o in layout.objects]
    for colour, shape in HELD_OUT_COMBINATIONS:
        assert any(o.colour == colour for o in objects)
        assert any(o.shape == shape for o in objects)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colour": "red"}, "unknown; use phrasing, combinations, referent"),
        ({"phrasing": "odd"}, "must be one of train, held_out"),
        ({"combinations": "odd"}, "must be one of train, held_out, all"),
        ({"referent": Referent(colour="red")}, "must name one"),
        ({"referent": Referent(motion="sideways")}, "must name one"),
    ],
)
def test_reset_options_that_mean_nothing_are_refused(
    task: str, options: dict[str, Any], message: str, make_env: MakeEnv
) -> None:
    with pytest.raises(ValueError, match=message):
        make_env(task).reset(seed=0, options=options)


def test_a_motion_can_be_asked_for_with_a_colour_and_a_shape(make_env: MakeEnv) -> None:
    env = make_env("track_motion", cameras=(), labels="none", size=16)
    for words in (Referent(motion="fastest", colour="red", shape="cross"), Referent(motion="stopping", shape="ball")):
        for seed in range(3):
            env.reset(seed=seed, options={"referent": words})
            assert all(words.colour in (None, o.colour) and words.shape == o.shape for o in env.layout.objects)
            target = env.layout.referents[env.layout.target]
            assert target is not None
            assert target.motion == words.motion


def test_reset_options_force_what_is_named_and_how(task: str, make_env: MakeEnv) -> None:
    env = make_env(task, cameras=(), labels="none", size=16)
    referents = [Referent(colour="red", shape="cross"), Referent(colour="blue", shape="cube")]
    if task == "track_motion":
        referents = [Referent(motion=motion) for group in GROUPS for motion in group[:2]]
    if task == "track_event":
        referents = [dataclasses.replace(words, event=kind) for words in referents for kind in EVENTS]
    for referent in referents:
        observation, info = env.reset(seed=3, options={"referent": referent})
        assert env.layout.referents[info["privileged"]["target"]] == referent
        assert referent_of(env, observation["instruction"]) == referent
    env.reset(seed=3, options={"combinations": "held_out"})
    target = env.layout.objects[env.layout.target]
    assert (target.colour, target.shape) in HELD_OUT_COMBINATIONS


# What the policy sees.


def test_every_object_is_large_enough_to_tell_its_shape() -> None:
    choose_gl_backend()
    model = load_scene()
    for geom in range(model.ngeom):
        if model.geom_bodyid[geom] != 0 and model.body_mocapid[model.geom_bodyid[geom]] < 0:
            model.geom_group[geom] = 5  # no arm: nothing is in front of the object
    data = mujoco.MjData(model)
    renderer = scene_renderer(model, 64)
    across = {}
    for shape in SHAPES:
        for size in SIZES:
            shown = TableObject(colour="red", shape=shape, size=size, rgb=COLOURS["red"])
            show_objects(model, [shown])
            renderer.forget_episode()
            for x, y in [(-0.18, -0.19), (-0.18, 0.19), (0.18, 0.0), (0.0, 0.0)]:
                data.mocap_pos[:] = PARKED
                data.mocap_pos[0] = (x, y, shown.half_height)
                mujoco.mj_forward(model, data)
                _, boxes, _ = renderer.draw_with_boxes(data, "front")
                across[shape, size, x, y] = boxes[0, 2:] * 64
    renderer.close()
    assert min(extent.min() for extent in across.values()) >= 7, across
    assert min(extent.max() for extent in across.values()) >= 8, across


def test_nothing_privileged_reaches_the_observation(task: str, make_env: MakeEnv, differences: Differences) -> None:
    """Two episodes that differ only in which object is meant look the same in everything but the words."""
    plain, other = make_env(task), make_env(task)
    plain.reset(seed=4), other.reset(seed=4)
    text, index = other.counterfactual("train", np.random.default_rng(0))
    other._layout = dataclasses.replace(other.layout, target=index)
    other.instruction = text
    for action in actions(plain, 40):
        seen, seen_other = plain.step(action), other.step(action)
        assert seen[4]["privileged"]["target"] != seen_other[4]["privileged"]["target"]
        assert differences(seen[0], seen_other[0]) == [".instruction"]


def test_proprioception_says_nothing_about_objects(task: str, make_env: MakeEnv) -> None:
    plain, moved = make_env(task), make_env(task)
    plain.reset(seed=4), moved.reset(seed=4)
    moved._slots.positions[:, :SLOTS, :2] += 0.05
    lifted = np.zeros(len(plain.action_names))  # the hand stays above the objects
    for _ in range(10):
        seen, seen_moved = plain.step(lifted)[0], moved.step(lifted)[0]
    np.testing.assert_array_equal(seen["agent_pos"], seen_moved["agent_pos"])
    assert not np.array_equal(seen["pixels"]["front"], seen_moved["pixels"]["front"])


def test_the_look_of_target_and_distractors_is_alike(make_env: MakeEnv) -> None:
    # Size, yaw and shade are drawn the same way for all: none of them may tell the target.
    scenes = layouts(make_env("track", cameras=()), count=400)
    for feature in (lambda o: o.size == "large", lambda o: o.yaw > 0, lambda o: o.rgb[0] > COLOURS[o.colour][0]):
        share = [np.mean([feature(layout.objects[i]) for layout in scenes]) for i in range(4)]
        assert np.ptp(share) < 0.16  # about 4.5 standard errors
