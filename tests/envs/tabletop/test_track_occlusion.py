"""`track_occlusion`: every object is really out of sight for a while, comes out as expected, and must be kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from envs.tabletop.arm import MAX_SPEED, RAMP
from envs.tabletop.env import TabletopEnv
from envs.tabletop.episode import Layout
from envs.tabletop.scene import CONTROL_HZ
from envs.tabletop.tasks.track import EXPERT, HORIZON
from envs.tabletop.tasks.track_occlusion import HIDDEN_TOLERANCE, JUDGED_STEPS, SECONDS_HIDDEN, hidden_steps

MakeEnv = Callable[..., TabletopEnv]
Act = Callable[[TabletopEnv, dict], np.ndarray]  # type: ignore[type-arg]


def layouts(env: TabletopEnv, count: int) -> list[Layout]:
    found = []
    for seed in range(count):
        env.np_random = np.random.default_rng(seed)
        found.append(env.sample_layout("train", None))
    return found


def passages(hidden: np.ndarray) -> list[tuple[int, int]]:
    """First and one-past-last step of every time in hiding that begins and ends in the episode."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], hidden.astype(int), [0]])))
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a > 0 and b < len(hidden)]


def run(env: TabletopEnv, seed: int, act: Act) -> bool:
    """One episode of acting on the environment and what is privileged; whether it succeeds."""
    _, info = env.reset(seed=seed)
    for _ in range(env.horizon):
        *_, info = env.step(act(env, info["privileged"]))
    return bool(info["is_success"])


def towards(env: TabletopEnv, secret: dict, place: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    return np.clip(10 * (place - secret["hand"][:2]) / MAX_SPEED[:2], -1, 1)


def test_every_object_passes_under_the_screen_in_the_judged_part_for_as_long_as_it_should(make_env: MakeEnv) -> None:
    for layout in layouts(make_env("track_occlusion", cameras=()), 60):
        for index in range(len(layout.objects)):
            hidden = hidden_steps(layout, index)
            assert hidden.shape == (HORIZON + 1,)
            assert not hidden[0]
            whole = [(a, b) for a, b in passages(hidden) if a >= HORIZON + 1 - JUDGED_STEPS]
            assert whole
            for first, last in whole:
                steps = last - first
                assert SECONDS_HIDDEN[0] * CONTROL_HZ - 1.5 <= steps <= SECONDS_HIDDEN[1] * CONTROL_HZ + 1.5


def test_nobody_turns_around_or_changes_speed_in_hiding(make_env: MakeEnv) -> None:
    for layout in layouts(make_env("track_occlusion", cameras=()), 60):
        for index, path in enumerate(layout.paths):
            steps = np.diff(path[: HORIZON * RAMP + 1 : RAMP], axis=0)
            for first, last in passages(hidden_steps(layout, index)):
                assert np.ptp(steps[first - 1 : last], axis=0).max() < 1e-12
                assert abs(steps[first, 1]) > 0.1 / CONTROL_HZ
            np.testing.assert_array_equal(steps[:, 0], 0.0)  # each on its lane


def test_objects_differ_in_speed_and_lane(make_env: MakeEnv) -> None:
    for layout in layouts(make_env("track_occlusion", cameras=()), 20):
        speeds = np.abs(np.diff(layout.paths[:, :2, 1], axis=1)).ravel()
        assert len(np.unique(speeds.round(9))) == 4
        assert np.diff(np.sort(layout.paths[:, 0, 0])).min() > 0.06


def test_the_front_camera_loses_sight_of_it_for_four_to_nine_tenths_of_a_second(make_env: MakeEnv) -> None:
    env = make_env("track_occlusion", cameras=("front",))
    gaps = []
    for seed in range(4):
        _, info = env.reset(seed=seed)
        seen = []
        for _ in range(HORIZON):
            back = np.array([-0.2, 0.0])  # so that the arm hides nothing
            *_, info = env.step(towards(env, info["privileged"], back))
            secret = info["privileged"]
            seen.append(secret["visible"]["front"])
            assert not secret["boxes"]["front"][~secret["visible"]["front"]].any()
        for index, visible in enumerate(np.array(seen).T):
            hidden = hidden_steps(env.layout, index)[1:]
            assert not (visible & hidden)[30:].any()  # once the arm is away
            for first, last in passages(~visible):
                if first >= HORIZON - JUDGED_STEPS:
                    gaps.append((last - first) / CONTROL_HZ)
    assert len(gaps) >= 16
    assert min(gaps) >= 0.4
    assert max(gaps) <= 0.95


def test_the_expert_succeeds(make_env: MakeEnv) -> None:
    env = make_env("track_occlusion", cameras=(), labels="none", size=16)
    assert all(run(env, seed, lambda env, secret: EXPERT(env, {"privileged": secret})) for seed in range(20))


@pytest.mark.parametrize("waiting", ["middle", "where it went under", "where it will come out"])
def test_following_in_sight_and_waiting_in_hiding_fails(waiting: str, make_env: MakeEnv) -> None:
    """The gripper is put where it should be in every other step, so that only the waiting can be the reason."""
    env = make_env("track_occlusion", cameras=(), labels="none", size=16)
    for seed in range(12):
        env.reset(seed=seed)
        metrics, layout = env.metrics, env.layout
        metrics.errors[:] = 0.0
        for index in range(len(layout.objects)):
            assert env.judge(index)
            y = layout.paths[index, : HORIZON * RAMP + 1 : RAMP, 1]
            for first, last in passages(hidden_steps(layout, index)):
                places = {
                    "middle": layout.screen,
                    "where it went under": y[first - 1],
                    "where it will come out": y[last],
                }
                metrics.errors[first:last, index] = np.abs(y[first:last] - places[waiting])
            assert not env.judge(index)


def test_in_hiding_it_is_judged_more_strictly_than_in_sight(make_env: MakeEnv) -> None:
    env = make_env("track_occlusion", cameras=(), labels="none", size=16)
    env.reset(seed=0)
    env.metrics.errors[:] = HIDDEN_TOLERANCE + 0.005
    assert not env.judge(0)
    assert env.fault(0) == "lost the target under the screen"
    env.metrics.errors[hidden_steps(env.layout, 0)] = HIDDEN_TOLERANCE
    assert env.judge(0)
    env.metrics.errors[~hidden_steps(env.layout, 0)] = 0.05  # and in sight as `track` is
    assert not env.judge(0)


def test_parking_over_the_middle_of_the_screen_fails(make_env: MakeEnv) -> None:
    env = make_env("track_occlusion", cameras=(), labels="none", size=16)

    def park(env: TabletopEnv, secret: dict) -> np.ndarray:  # type: ignore[type-arg]
        return towards(env, secret, np.array([secret["positions"][0, 0], env.layout.screen]))

    assert not any(run(env, seed, park) for seed in range(6))
