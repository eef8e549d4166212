"""`track_event`: events lie in the episode, cannot be foreseen, and whoever does not wait for them fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from configs.collect import CollectConfig
from envs.tabletop.arm import RAMP
from envs.tabletop.env import TabletopEnv
from envs.tabletop.episode import Layout
from envs.tabletop.events import EVENTS
from envs.tabletop.instructions import Referent
from envs.tabletop.objects import SLOTS
from envs.tabletop.plans import plan
from envs.tabletop.scene import LAMP_PLACE, LAMP_RADIUS
from envs.tabletop.situation import Situation
from envs.tabletop.tasks.track_event import (
    ARRIVAL,
    EXPERT,
    HOME,
    HOME_GAP,
    HOME_TOLERANCE,
    HORIZON,
    NOTICE,
    RETURN,
    TOLERANCE,
    law,
)
from envs.task import find_task
from training.collect import Demonstrator

MakeEnv = Callable[..., TabletopEnv]
Project = Callable[[TabletopEnv, np.ndarray], np.ndarray]
Act = Callable[[dict[str, Any], int], np.ndarray]

BALL = Referent(colour="red", shape="ball")


def layouts(env: TabletopEnv, count: int) -> list[Layout]:
    found = []
    for seed in range(count):
        env.np_random = np.random.default_rng(seed)
        found.append(env.sample_layout("train", None))
    return found


def moves(layout: Layout, index: int) -> np.ndarray:
    """Whether object `index` moves in each control step, (HORIZON,) bool."""
    path = layout.paths[index, : HORIZON * RAMP + 1 : RAMP]
    found: np.ndarray = np.linalg.norm(np.diff(path, axis=0), axis=1) > 1e-9
    return found


def run(env: TabletopEnv, seed: int, act: Act, **options: Any) -> bool:
    """One episode of acting on what is privileged and the step; whether it succeeds."""
    _, info = env.reset(seed=seed, options=options)
    for step in range(env.horizon):
        *_, info = env.step(act(info["privileged"], step))
    return bool(info["is_success"])


def expert(secret: dict[str, Any], step: int) -> np.ndarray:
    action: np.ndarray = EXPERT(None, {"privileged": secret})
    return action


def always_active(secret: dict[str, Any], step: int) -> np.ndarray:
    now = replace(Situation.of(secret), active=True)
    action: np.ndarray = law(now)[secret["target"]]
    return action


# What happens when.


def test_events_are_what_the_words_say_and_lie_in_the_episode(make_env: MakeEnv) -> None:
    kinds = []
    for layout in layouts(make_env("track_event", cameras=()), 80):
        assert layout.events is not None
        assert layout.lamp is not None
        assert layout.events.shape == (len(layout.objects), 2)
        for index, (start, end) in enumerate(layout.events.tolist()):
            words = layout.referents[index]
            assert words is not None
            kinds.append(words.event)
            assert 10 <= start < end - ARRIVAL
            assert end <= HORIZON
            moving = moves(layout, index)
            if words.event == "while":
                assert end + RETURN <= HORIZON - 2
                assert np.flatnonzero(moving).tolist() == list(range(start - NOTICE, end - NOTICE))
            elif words.event == "stop":
                assert np.flatnonzero(moving).tolist() == list(range(start - NOTICE))
                assert end == HORIZON
            else:
                assert (start, end) == (layout.lamp, HORIZON)
    for kind in EVENTS:
        assert binomtest(kinds.count(kind), len(kinds), 1 / len(EVENTS)).pvalue > 1e-3


def test_times_are_of_each_objects_own_and_spread_widely(make_env: MakeEnv) -> None:
    scenes = layouts(make_env("track_event", cameras=()), 80)
    for kind in EVENTS:
        starts = [
            start
            for layout in scenes
            for words, (start, _) in zip(layout.referents, layout.events, strict=True)
            if words.event == kind
        ]
        assert np.ptp(starts) > 30
        # Leaving at one time fits few starts: from a moment too soon to as late as a far object still allows.
        best = max(np.mean([-3 <= leaving - start <= 10 for start in starts]) for leaving in range(HORIZON))
        assert best < 0.5
    apart = [len(set(layout.events[:, 0])) for layout in scenes if "lamp" not in {w.event for w in layout.referents}]
    assert np.mean(apart) > 3.5
    # An object that waits for the lamp moves as it likes.
    free = [moves(layout, i) for layout in scenes for i, words in enumerate(layout.referents) if words.event == "lamp"]
    assert {(bool(m[0]), bool(m[-1])) for m in free} == {(a, b) for a in (False, True) for b in (False, True)}


def test_objects_keep_away_from_home_and_lamp(make_env: MakeEnv) -> None:
    for layout in layouts(make_env("track_event", cameras=()), 60):
        for one, path in zip(layout.objects, layout.paths, strict=True):
            assert np.linalg.norm(path - HOME[:2], axis=1).min() > HOME_GAP - 0.005
            assert np.linalg.norm(path - LAMP_PLACE, axis=1).min() > LAMP_RADIUS + one.footprint - 0.005
    assert HOME_GAP > HOME_TOLERANCE + TOLERANCE  # nobody is at home and at an object


def test_what_is_privileged_says_when_the_event_holds(make_env: MakeEnv) -> None:
    env = make_env("track_event", cameras=(), labels="none", size=16)
    _, info = env.reset(seed=3)
    for step in range(HORIZON):
        secret = info["privileged"]
        np.testing.assert_array_equal(secret["events"], env.layout.events)
        start, end = secret["events"].T
        np.testing.assert_array_equal(secret["active"], (start <= step) & (step < end))
        assert secret["kinds"] == tuple(words.event for words in env.layout.referents)
        *_, info = env.step(np.zeros(3))


def test_elsewhere_the_event_is_the_whole_episode(make_env: MakeEnv) -> None:
    for task in ("reach", "track", "track_motion", "track_occlusion"):
        env = make_env(task, cameras=(), labels="none", size=16)
        _, info = env.reset(seed=0)
        secret = info["privileged"]
        shown = secret["present"]
        assert np.count_nonzero(shown) == len(env.layout.objects)
        assert (secret["events"][shown] == (0, env.horizon)).all()
        np.testing.assert_array_equal(secret["active"], shown)
        assert set(secret["kinds"]) == {None}


# What can be seen.


def test_the_first_picture_does_not_tell_the_time(make_env: MakeEnv, project: Project) -> None:
    """The same scene with the lamp at another time looks the same until one of them turns green."""
    early, late = make_env("track_event"), make_env("track_event")
    seen, seen_late = early.reset(seed=2)[0], late.reset(seed=2)[0]
    early._layout, late._layout = replace(early.layout, lamp=20), replace(late.layout, lamp=40)
    for step in range(45):
        same = np.array_equal(seen["pixels"]["front"], seen_late["pixels"]["front"])
        assert same == (not 20 <= step < 40), step
        if not same:
            rows, columns = np.nonzero((seen["pixels"]["front"] != seen_late["pixels"]["front"]).any(axis=-1))
            assert 12 <= len(rows) <= 60  # a lamp one can see, and nothing else
            x, y = project(early, np.array([*LAMP_PLACE, 0.03]))
            assert np.hypot(columns / 64 - x, rows / 64 - y).max() < 0.08
        seen, seen_late = early.step(np.zeros(3))[0], late.step(np.zeros(3))[0]


def test_the_lamp_is_red_again_in_the_next_episode(make_env: MakeEnv) -> None:
    used, fresh = make_env("track_event"), make_env("track_event")
    used.reset(seed=0)
    for _ in range(HORIZON):
        used.step(np.zeros(3))
    np.testing.assert_array_equal(used.reset(seed=1)[0]["pixels"]["front"], fresh.reset(seed=1)[0]["pixels"]["front"])


def test_the_arm_never_hides_the_lamp_and_at_home_it_hides_no_object(make_env: MakeEnv, project: Project) -> None:
    env = make_env("track_event", cameras=("front",))
    for seed in range(4):
        _, info = env.reset(seed=seed)
        assert info["privileged"]["visible"]["front"].all()
        for _ in range(HORIZON):
            seen, *_, info = env.step(expert(info["privileged"], 0))
            x, y = project(env, np.array([*LAMP_PLACE, 0.036]))
            red, green, blue = seen["pixels"]["front"][int(y * 64), int(x * 64)].astype(int)
            lit = green if env.step_count >= env.layout.lamp else red
            assert lit > 150
            assert lit > 2 * min(red, green) + 20 > blue


# Who succeeds.


@pytest.mark.parametrize("kind", sorted(EVENTS))
def test_the_expert_succeeds_at_every_kind(kind: str, make_env: MakeEnv) -> None:
    env = make_env("track_event", cameras=(), labels="none", size=16)
    assert all(run(env, seed, expert, referent=replace(BALL, event=kind)) for seed in range(8))


@pytest.mark.parametrize("kind", sorted(EVENTS))
def test_going_at_once_or_never_fails(kind: str, make_env: MakeEnv) -> None:
    env = make_env("track_event", cameras=(), labels="none", size=16)
    for seed in range(3):
        assert not run(env, seed, always_active, referent=replace(BALL, event=kind))
        assert env.fault(0) == "left home before the event"
        assert not run(env, seed, lambda secret, step: np.zeros(3), referent=replace(BALL, event=kind))
        never = "did not touch the target in time" if kind == "stop" else "not at the target in time"
        assert env.fault(0) == never


@pytest.mark.parametrize("kind", sorted(EVENTS))
def test_going_too_late_fails(kind: str, make_env: MakeEnv) -> None:
    env = make_env("track_event", cameras=(), labels="none", size=16)

    def late(secret: dict[str, Any], step: int) -> np.ndarray:
        on_time = step >= secret["events"][0, 0] + ARRIVAL
        return expert(secret, step) if on_time else np.zeros(3)

    assert not any(run(env, seed, late, referent=replace(BALL, event=kind)) for seed in range(4))


def test_not_coming_back_fails(make_env: MakeEnv) -> None:
    env = make_env("track_event", cameras=(), labels="none", size=16)

    def stay(secret: dict[str, Any], step: int) -> np.ndarray:
        return always_active(secret, step) if step >= secret["events"][0, 0] else expert(secret, step)

    for seed in range(4):
        assert not run(env, seed, stay, referent=replace(BALL, event="while"))
        assert env.fault(0) == "not home in time after the event"


def test_who_follows_the_words_for_another_object_is_judged_to_have_done_so(make_env: MakeEnv) -> None:
    env = make_env("track_event", cameras=(), labels="none", size=16)
    for other in (1, 2, 3):
        assert not run(env, 10, lambda secret, step, other=other: expert({**secret, "target": other}, step))
        assert env.judge(other)


# Demonstrations.


def test_a_plan_knows_nothing_of_what_begins_or_ends_on_the_way() -> None:
    moments, steps = 6, 8
    settings: dict[str, Any] = {
        "positions": np.tile([0.1, 0.0, 0.04], (moments, 1, 1)),
        "velocities": np.zeros((moments, 1, 2)),
        "half_heights": np.array([0.04]),
        "hands": np.tile(HOME, (moments, 1)),
        "steps": steps,
    }
    names = ("dx", "dy", "dz")
    begins = np.arange(moments)[:, None] >= 3
    for kind in EVENTS:
        planned = plan(law, names, **settings, active=begins, kinds=(kind,))
        assert not planned[:3].any()  # at home: stay, for the whole plan
        assert (planned[3:, 0, 0, 0] > 0.9).all()
        np.testing.assert_array_equal(
            plan(law, names, **settings, active=~begins, kinds=(kind,))[0],
            plan(law, names, **settings, kinds=(kind,))[0],
        )


def test_demonstrations_hold_the_events_of_all_objects_and_labels_that_wait_for_them(make_env: MakeEnv) -> None:
    env = make_env("track_event", cameras=("front",), size=16)
    demonstrator = Demonstrator(env, find_task("track_event"), CollectConfig(size=16, noise=0.0, detours=0.0))
    for seed in range(3):
        episode = demonstrator.demonstrate(seed)
        assert episode is not None
        assert episode.success
        assert len(episode) == HORIZON
        assert episode.events.shape == (SLOTS, 2)
        np.testing.assert_array_equal(episode.events, env.layout.events)
        for index, (start, _) in enumerate(episode.events.tolist()):
            before = np.arange(HORIZON) < min(start, int(episode.events[episode.target, 0]))
            assert np.abs(episode.action[before, index]).max() < 0.25
            assert np.linalg.norm(episode.agent_pos[before, :3] - HOME, axis=1).max() < HOME_TOLERANCE
            assert np.abs(episode.action[start, index]).max() > 0.5


# What can be asked for.


def test_an_event_can_be_left_open_and_must_be_known(make_env: MakeEnv) -> None:
    env = make_env("track_event", cameras=(), labels="none", size=16)
    env.reset(seed=0, options={"referent": BALL})
    words = env.layout.referents[env.layout.target]
    assert words is not None
    assert words.pair == ("red", "ball")
    assert words.event in EVENTS
    assert env.target_name == f"red ball ({words.event})"
    with pytest.raises(ValueError, match="must name one event of while, lamp, stop"):
        env.reset(seed=0, options={"referent": replace(BALL, event="noon")})
