"""Wherever another policy leads the hand, the expert takes hold of the thing and goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from envs.metaworld.expert import expert
from envs.metaworld.grasps import ABOVE, CLOSE, GRASPS, LOW, OPEN, Grasp, approach, as_held, drag

Make = Callable[..., Any]

PLACE = np.array([0.1, 0.6, 0.05])
GRASP = Grasp(place=(0.01, 0, 0.02), near=0.015, reach=0.01, across=0.02, height=0.015)


def state_of(off: tuple[float, float, float], opening: float = 1.0) -> np.ndarray:
    """With the hand so far from the place where it would take hold."""
    state = np.zeros(39)
    state[:3], state[3], state[4:7], state[-3:] = PLACE + off, opening, PLACE - GRASP.place, (0, 0.8, 0)
    return state


# From above, the puck of pick-out-of-hole is pressed below the rim, where no finger reaches it.
@pytest.mark.parametrize("name", sorted(GRASPS.keys() - {"pick-out-of-hole"}))
def test_closed_fingers_on_top_of_the_thing_are_lifted_and_opened(name: str, make: Make) -> None:
    env = make(name)
    _, info = env.reset(seed=2)
    for press in (False, True):
        for _ in range(45):
            state = info["privileged"]["state"]
            to = state[4:7] + GRASPS[name].place + [0, 0, 0 if press else ABOVE]
            info = env.step(np.clip([*10 * (to - state[:3]), CLOSE], -1, 1).astype(np.float32))[-1]
    assert not info["privileged"]["held"], "nothing is held by fingers that were closed before they came there"
    before = np.linalg.norm(info["privileged"]["state"][:2] - info["privileged"]["state"][4:6])
    assert before < 0.05, f"the hand stands {before:.3f} m beside the thing: the test does not press on it"
    while env.step_count < env.horizon and not info["is_success"]:
        info = env.step(expert(env, info))[-1]
    assert info["is_success"], f"hand and thing end at {info['privileged']['state'][:7].round(3)}"


def test_the_hand_goes_up_before_across_and_opens_before_down() -> None:
    beside, over = approach(GRASP, state_of((0.05, 0, 0))), approach(GRASP, state_of((0.05, 0, LOW + 0.01)))
    np.testing.assert_allclose(beside[:2], 0, atol=1e-9)
    assert beside[2] > 1
    assert over[0] < -1
    assert approach(GRASP, state_of((0, 0, 0.04), opening=0.3))[2] > 1
    assert approach(GRASP, state_of((0, 0, 0.04)))[2] < -0.5
    assert {action[3] for action in (beside, over)} == {OPEN}
    assert approach(GRASP, state_of((0, 0, 0.005)))[3] == CLOSE


def test_what_is_held_is_told_to_be_where_the_script_takes_it_as_held() -> None:
    for off in ((0.05, 0.03, 0.04), (-0.05, 0, -0.04)):
        state = state_of(off)
        before = state.copy()
        told = as_held(GRASP, state)
        np.testing.assert_array_equal(state, before)
        rest = told[:3] - (told[4:7] + GRASP.place)
        assert np.linalg.norm(rest[:2]) == pytest.approx(GRASP.across)
        assert abs(rest[2]) == pytest.approx(GRASP.height)
        np.testing.assert_array_equal(np.delete(told, [4, 5, 6]), np.delete(before, [4, 5, 6]))
    held_well = state_of((0.01, 0.01, 0.01))
    np.testing.assert_allclose(as_held(GRASP, held_well), held_well)


def test_a_thing_is_drawn_along_the_table() -> None:
    action = drag(state_of((0, 0, 0.01)))
    np.testing.assert_array_less([-3, 4], [action[0], action[1] + 0.1])
    assert action[3] == CLOSE


def test_held_is_what_both_fingers_touch(make: Make) -> None:
    env = make("pick-place")
    _, info = env.reset(seed=2)
    held = [info["privileged"]["held"]]
    while not info["is_success"]:
        info = env.step(expert(env, info))[-1]
        held.append(info["privileged"]["held"])
    assert not any(held[:10])
    assert all(held[-5:])
    table = make("reach")
    _, info = table.reset(seed=2)
    for _ in range(80):  # with closed fingers on the table, which cannot move
        info = table.step(np.array([0, 0, -1, 1], np.float32))[-1]
    assert not info["privileged"]["held"]
