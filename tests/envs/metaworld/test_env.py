"""What Meta-World does otherwise than its users expect is put right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from configs.seeds import split_seed
from envs.metaworld.env import GOAL, LONGEST, OBJECT
from envs.metaworld.expert import expert
from envs.metaworld.sawyer import Sawyer
from envs.metaworld.specs import CAMERAS, HORIZON, SPECS
from envs.task import find_task, make_task

Make = Callable[..., Any]
Play = Callable[[Any, int], dict[str, Any]]
Differences = Callable[[Any, Any], list[str]]


def actions(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, 4)).astype(np.float32)


# Seeds.


@pytest.mark.parametrize("name", ["pick-place", "box-close", "coffee-pull"])
def test_same_seed_same_bytes_whatever_came_before(name: str, make: Make, play: Play, differences: Differences) -> None:
    fresh, used = (make(name, cameras=("corner2",)) for _ in range(2))
    used.reset(seed=7)
    for action in actions(30):
        used.step(action)
    assert differences(fresh.reset(seed=split_seed("test", 3)), used.reset(seed=split_seed("test", 3))) == []
    for action in actions(10):
        assert differences(fresh.step(action), used.step(action)) == []


def test_all_fifty_forget_what_came_before() -> None:
    for name in SPECS:
        fresh, used = Sawyer(name), Sawyer(name)
        used.reset(seed=1)
        for action in actions(20):
            used.step(action)
        one, other = fresh.reset(seed=2)[0], used.reset(seed=2)[0]
        np.testing.assert_array_equal(one, other, err_msg=name)
        np.testing.assert_array_equal(fresh.unwrapped.data.qpos, used.unwrapped.data.qpos)  # type: ignore[attr-defined]


def test_seeds_beyond_32_bits_are_all_used(make: Make) -> None:
    env = make("push")
    scenes = [env.reset(seed=seed)[1]["privileged"]["state"] for seed in (5, 5 + 2**32, 5 + 2**64, 6)]
    assert len({scene.tobytes() for scene in scenes}) == 4
    assert env.reset()[1]["privileged"]["state"].tobytes() not in {scene.tobytes() for scene in scenes}


# What is seen, and what is not.


def test_the_state_has_the_goal_in_it() -> None:
    for name in SPECS:
        env = Sawyer(name)
        first, _ = env.reset(seed=0)
        later = env.step(np.zeros(4, np.float32))[0]
        for state in (first, later):
            np.testing.assert_allclose(state[-3:], env.unwrapped._target_pos, err_msg=name)  # type: ignore[attr-defined]
            assert state[-3:].any()


@pytest.mark.parametrize("name", ["reach", "pick-place", "push-wall", "sweep", "soccer"])
def test_proprioception_tells_nothing_about_the_scene(name: str, make: Make) -> None:
    one, other = make(name), make(name)
    (first, known), (second, known_other) = one.reset(seed=1), other.reset(seed=2)
    assert not np.allclose(known["privileged"]["state"][4:7], known_other["privileged"]["state"][4:7])
    np.testing.assert_array_equal(first["agent_pos"], second["agent_pos"])
    assert set(first) == {"pixels", "agent_pos", "instruction"}
    np.testing.assert_array_equal(first["agent_pos"], known["privileged"]["state"][:4].astype(np.float32))


def test_the_first_picture_is_of_the_scene_as_it_is(make: Make) -> None:
    env = make("drawer-open", cameras=("corner2",))
    env.reset(seed=0)
    seen, _ = env.reset(seed=1)
    mujoco.mj_forward(env.model, env.data)
    np.testing.assert_array_equal(seen["pixels"]["corner2"], env.picture("corner2", 32))
    np.testing.assert_allclose(env.data.body("drawer").xpos, env.model.body("drawer").pos)


@pytest.mark.parametrize("name", ["stick-push", "stick-pull"])
def test_the_thermos_stays_where_it_is(name: str, make: Make) -> None:
    env = make(name)
    env.reset(seed=0)
    start = env.data.site("insertion").xpos.copy()
    for _ in range(40):
        env.step(np.zeros(4, np.float32))
    np.testing.assert_allclose(env.data.site("insertion").xpos, start, atol=1e-3)


def test_pictures_are_upright_and_the_middle_is_the_middle(make: Make) -> None:
    env = make("pick-place", cameras=CAMERAS, size=64)
    env.reset(seed=0)
    hand = env.data.body("hand").xpos
    for camera in ("corner2", "corner2_middle", "corner3"):
        here, above = env.in_picture(camera, hand), env.in_picture(camera, hand + np.array([0, 0, 0.1]))
        assert above[1] < here[1] - 0.02
    whole, middle = (np.array(env.in_picture(camera, hand)) - 0.5 for camera in ("corner2", "corner2_middle"))
    np.testing.assert_allclose(middle, whole * 1.5, atol=1e-6)


def test_stock_pictures_have_shadows_and_fast_ones_have_not(make: Make) -> None:
    fast, stock = (make("button-press", cameras=("corner2",), size=64, stock=stock) for stock in (False, True))
    plain, rich = (env.reset(seed=0)[0]["pixels"]["corner2"].astype(int) for env in (fast, stock))
    assert 1 < np.abs(plain - rich).mean() < 40  # another look of the same scene
    np.testing.assert_array_equal(fast.model.light_castshadow, stock.model.light_castshadow)


def test_environments_side_by_side_do_not_disturb_each_other(make: Make) -> None:
    names = ("window-open", "hammer", "reach")
    envs = [make(name, cameras=("corner2",)) for name in names]
    first = [env.reset(seed=0)[0]["pixels"]["corner2"] for env in envs]
    together = [[env.step(action)[0]["pixels"]["corner2"] for env in envs] for action in actions(3)]
    for index, name in enumerate(names):
        alone = make(name, cameras=("corner2",))
        np.testing.assert_array_equal(alone.reset(seed=0)[0]["pixels"]["corner2"], first[index])
        for action, pictures in zip(actions(3), together, strict=True):
            np.testing.assert_array_equal(alone.step(action)[0]["pixels"]["corner2"], pictures[index])


# Episodes.


def test_the_first_success_ends_the_episode_and_stays(make: Make) -> None:
    env = make("button-press-topdown")
    _, info = env.reset(seed=split_seed("test", 0))
    terminated = False
    while not terminated:
        assert not info["is_success"]
        _, reward, terminated, truncated, info = env.step(expert(env, info))
        assert not truncated
    assert info["is_success"]
    assert info["success"] == reward == 1
    env._sawyer.success = False  # as after a step in which it no longer holds
    env.note()
    assert env.success()


def test_time_is_up_at_the_horizon(make: Make) -> None:
    env = make("reach")
    env.reset(seed=0)
    ends = [env.step(np.zeros(4, np.float32))[2:4] for _ in range(HORIZON)]
    assert ends == [(False, False)] * (HORIZON - 1) + [(False, True)]


@pytest.mark.parametrize("horizon", [3, LONGEST])
def test_another_horizon_reaches_all_that_count_steps(horizon: int) -> None:
    spec = find_task("metaworld/reach").varied({"horizon": horizon})
    env = make_task(spec, cameras=(), size=16, labels=False)
    try:
        env.reset(seed=0)
        ends = [env.step(np.zeros(4, np.float32))[2:4] for _ in range(horizon)]
        assert ends == [(False, False)] * (horizon - 1) + [(False, True)]
        assert env.spec is not None
        assert spec.horizon == env.spec.max_episode_steps == horizon
    finally:
        env.close()


@pytest.mark.parametrize("horizon", [0, LONGEST + 1, 450.5, "500"])
def test_a_horizon_that_meta_world_does_not_have_is_refused(horizon: Any, make: Make) -> None:
    with pytest.raises(ValueError, match=f"horizon {horizon!r} must be a whole number from 1 to 500, of control steps"):
        make("reach", horizon=horizon)


def test_what_lies_outside_of_the_actions_bounds_is_cut(make: Make) -> None:
    one, other = make("reach"), make("reach")
    for env in (one, other):
        env.reset(seed=0)
    for action in actions(5):
        state = one.step(25 * action)[4]["privileged"]["state"]
        np.testing.assert_array_equal(state, other.step(np.clip(25 * action, -1, 1))[4]["privileged"]["state"])


def test_words_are_for_training_or_held_out(make: Make) -> None:
    env = make("pick-place")
    said = {
        phrasing: {env.reset(seed=seed, options={"phrasing": phrasing})[0]["instruction"] for seed in range(40)}
        for phrasing in ("train", "held_out")
    }
    assert len(said["train"]) == 8
    assert len(said["held_out"]) == 4
    assert not said["train"] & said["held_out"]
    assert env.reset_options == {"phrasing": ("train", "held_out"), "told": ("own", "other")}
    assert env.target_name == "puck"
    with pytest.raises(ValueError, match="phrasing 'loud' must be one of train, held_out"):
        env.reset(options={"phrasing": "loud"})


def test_render_modes(make: Make) -> None:
    env = make("reach", cameras=("corner2",), render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (256, 256, 3)
    with pytest.raises(ValueError, match="rgb_array"):
        make("reach", cameras=("corner2",), render_mode="human")


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")  # a task is a wrapper
def test_gymnasium_finds_nothing_to_say(make: Make) -> None:
    check_env(make("reach", cameras=("corner2",)), skip_render_check=True)


# Labels.


@pytest.mark.parametrize("name", ["pick-place", "drawer-open", "hammer", "push-back"])
def test_boxes_are_where_the_things_are(name: str, make: Make) -> None:
    env = make(name, cameras=("corner2_middle",), size=96)
    for seed in range(3):
        _, info = env.reset(seed=seed)
        known = info["privileged"]
        assert known["target"] == OBJECT
        assert known["visible"]["corner2_middle"][[OBJECT, GOAL]].all()
        box = known["boxes"]["corner2_middle"][OBJECT]
        place = env.in_picture("corner2_middle", known["state"][4:7])
        assert (np.abs(box[:2] - place) <= box[2:] / 2 + 0.03).all()


@pytest.mark.parametrize("name", ["window-close", "peg-insert-side"])
def test_the_robots_far_parts_are_never_in_front_of_a_thing(name: str, make: Make) -> None:
    env = make(name, cameras=CAMERAS, size=64)
    everything = make(name, cameras=CAMERAS, size=64)
    everything.backdrop_groups = ()
    (_, info), (_, whole) = env.reset(seed=0), everything.reset(seed=0)
    for _ in range(12):
        for camera in CAMERAS:
            np.testing.assert_array_equal(info["privileged"]["boxes"][camera], whole["privileged"]["boxes"][camera])
        action = expert(env, info)
        info, whole = env.step(action)[4], everything.step(action)[4]
