"""Scenes that two tasks share, and whether the other one was done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from configs.seeds import split_seed
from envs.metaworld.env import OBJECT, SISTER, STAY
from envs.metaworld.expert import expert
from envs.metaworld.instructions import texts
from envs.metaworld.sawyer import Sawyer, scripted_policy
from envs.metaworld.sisters import DONE, SISTERS, Scene

Make = Callable[..., Any]
Play = Callable[[Any, int], dict[str, Any]]

# Scenes in which a sister is not done from the start, and where its policy looks for the thing.
TO_DO = {
    "coffee-pull": "buttonStart",
    "coffee-push": "buttonStart",
    "drawer-close": None,
    "faucet-close": "handleStartOpen",
    "faucet-open": "handleStartClose",
    "pick-place": None,
    "pick-place-wall": None,
    "push": None,
    "push-wall": None,
}


@pytest.mark.filterwarnings("ignore:Constant")
@pytest.mark.parametrize("name", sorted(name for name in DONE if not name.startswith("plate")))
def test_done_is_what_meta_world_calls_success(name: str) -> None:
    env, policy = Sawyer(name), scripted_policy(name)
    state, _ = env.reset(seed=split_seed("test", 0))
    done, agreed, succeeded = DONE[name](Scene(env.unwrapped.data)), [], False  # type: ignore[attr-defined]
    for _ in range(150):
        state = env.step(np.clip(policy.get_action(state), -1, 1))[0]
        agreed.append(done() == env.success)
        succeeded = succeeded or env.success
    assert all(agreed)
    assert succeeded


@pytest.mark.parametrize("name", sorted(SISTERS))
def test_doing_nothing_changes_nothing_and_doing_the_other_is_no_success(name: str, make: Make, play: Play) -> None:
    env = make(name)
    env.reset(seed=split_seed("test", 1))
    start = env.judge(SISTER)
    assert start == (name not in TO_DO)
    for _ in range(100):
        env.step(np.zeros(4, np.float32))
    assert env.judge(SISTER) == start
    assert not env.judge(OBJECT)
    assert play(env, 1)["is_success"]  # what the scene's own task asks for
    assert env.judge(OBJECT)
    assert not env.judge(SISTER)


@pytest.mark.filterwarnings("ignore:Constant")
@pytest.mark.parametrize("name", sorted(TO_DO))
def test_who_does_as_the_sister_says_is_judged_to_have_done_so(name: str, make: Make) -> None:
    env, policy = make(name), scripted_policy(SISTERS[name])
    _, info = env.reset(seed=split_seed("test", 1))
    over = False
    while not over and not env.judge(SISTER):
        state = info["privileged"]["state"].copy()
        if TO_DO[name]:
            state[4:7] = env.data.site(TO_DO[name]).xpos
        _, _, terminated, truncated, info = env.step(np.clip(policy.get_action(state), -1, 1))
        over = terminated or truncated
    assert env.judge(SISTER)
    assert not info["is_success"]


def test_the_words_are_those_of_the_sister(make: Make) -> None:
    env = make("drawer-open")
    env.reset(seed=0)
    for phrasing in ("train", "held_out"):
        text, index = env.counterfactual(phrasing, np.random.default_rng(0))
        assert text in texts("drawer-close", phrasing)  # type: ignore[arg-type]
        assert index == SISTER


def test_a_scene_without_a_sister_offers_no_other_words(make: Make) -> None:
    env = make("hammer")
    assert not hasattr(env, "counterfactual")
    assert not hasattr(env, "judge")
    assert len(env.things) == 2


def test_labels_have_the_sisters_thing(make: Make) -> None:
    env = make("coffee-push", cameras=("corner2_middle",), size=96)
    known = env.reset(seed=0)[1]["privileged"]
    boxes, visible = known["boxes"]["corner2_middle"], known["visible"]["corner2_middle"]
    assert visible.all()
    button = env.in_picture("corner2_middle", env.data.site("buttonStart").xpos)
    assert (np.abs(boxes[SISTER, :2] - button) < 0.06).all()
    assert not np.allclose(boxes[SISTER], boxes[OBJECT])


def test_the_expert_knows_nothing_of_sisters(make: Make) -> None:
    env = make("drawer-open")
    _, info = env.reset(seed=0)
    assert expert(env, info).shape == (4,)


@pytest.mark.parametrize("name", sorted(SISTERS))
def test_told_the_other_thing_that_is_the_task(name: str, make: Make) -> None:
    """Its words, its success and an expert for it; what is done from the start is left alone for a while."""
    env = make(name)
    told = {"told": "other"}
    _, info = env.reset(seed=split_seed("test", 2), options=told)
    known = info["privileged"]
    assert env.instruction in texts(SISTERS[name], "train")
    assert (known["target"], known["goal"]) == (SISTER, SISTER)
    assert info["is_success"] == (name not in TO_DO)
    steps, over = 0, False
    while not over:
        *_, terminated, truncated, info = env.step(expert(env, info))
        steps, over = steps + 1, terminated or truncated
    assert info["is_success"]
    assert not env.judge(OBJECT)
    assert steps < 120 if name in TO_DO else steps == STAY
    env.reset(seed=split_seed("test", 2), options={**told, "phrasing": "held_out"})
    assert env.instruction in texts(SISTERS[name], "held_out")
    env.reset(seed=split_seed("test", 2))
    assert env.instruction in texts(name, "train")


def test_the_scene_does_not_depend_on_what_is_told(make: Make) -> None:
    env = make("faucet-open")
    scenes = [env.reset(seed=3, options={"told": who})[1]["privileged"]["state"] for who in ("own", "other")]
    np.testing.assert_array_equal(*scenes)
    with pytest.raises(ValueError, match="told 'both' must be one of own, other"):
        env.reset(seed=3, options={"told": "both"})
    with pytest.raises(ValueError, match="reset option 'told' is unknown"):
        make("reach").reset(seed=3, options={"told": "other"})
