"""Paths: where they run, that objects never touch, that words for motions are true, and that starts tell nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, ks_2samp

from envs.tabletop.env import TabletopEnv
from envs.tabletop.episode import Layout
from envs.tabletop.instructions import Referent
from envs.tabletop.motion import (
    CLEARANCE,
    PATH_KINDS,
    REGION,
    bounce,
    ellipse,
    go_between,
    lissajous,
    sample_path,
    stop_and_go,
)
from envs.tabletop.scene import CONTROL_HZ
from envs.tabletop.tasks.track import SPEED, path_times
from envs.tabletop.tasks.track_motion import GROUPS, SPEEDS, STOP

MakeEnv = Callable[..., TabletopEnv]

TICK = 1 / 100  # seconds
ROUNDING = 1e-9
NAMED = [motion for group in GROUPS for motion in group[:2]]


def layouts(env: TabletopEnv, count: int, motion: str | None = None) -> list[Layout]:
    found = []
    for seed in range(count):
        env.np_random = np.random.default_rng(seed)
        found.append(env.sample_layout("train", Referent(motion=motion) if motion else None))
    return found


def travelled(path: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())


def swept(path: np.ndarray) -> float:
    """Twice the area that the line from the path's middle sweeps; positive counter-clockwise if y is left of x."""
    x, y = (path - path.mean(axis=0)).T
    return float(np.sum(x[:-1] * np.diff(y) - y[:-1] * np.diff(x)))


@pytest.mark.parametrize("kind", PATH_KINDS)
def test_paths_are_smooth_inside_the_region_and_as_fast_as_asked(kind: str) -> None:
    rng = np.random.default_rng(0)
    times = path_times()
    for _ in range(100):
        speed = rng.uniform(*SPEED)
        curve, distances = sample_path(kind, rng, times, speed)
        path = curve(distances)
        assert path.shape == (len(times), 2)
        assert (path >= REGION[0] - ROUNDING).all()
        assert (path <= REGION[1] + ROUNDING).all()
        step = np.linalg.norm(np.diff(path, axis=0), axis=1) / TICK
        # Ellipses and Lissajous figures keep their speed on average; nothing ever jumps.
        assert step.max() < 2.9 * speed
        if kind in ("circle", "line"):
            assert travelled(path) == pytest.approx(speed * times[-1], rel=0.01)


def test_an_unknown_kind_of_path_is_refused() -> None:
    with pytest.raises(ValueError, match="'zigzag' is unknown; choose one of circle"):
        sample_path("zigzag", np.random.default_rng(0), path_times(), 0.1)


def test_curves_against_their_formulas() -> None:
    quarter = 0.05 * np.pi / 2
    circle = ellipse(np.array([0.0, quarter]), centre=np.array([0.1, 0.0]), radii=(0.05, 0.05), phase=0.0, turn=1)
    np.testing.assert_allclose(circle, [[0.15, 0.0], [0.1, 0.05]], atol=1e-12)
    backwards = ellipse(np.array([quarter]), centre=np.array([0.1, 0.0]), radii=(0.05, 0.05), phase=0.0, turn=-1)
    np.testing.assert_allclose(backwards, [[0.1, -0.05]], atol=1e-12)
    there_and_back = bounce(
        np.array([0.0, 0.1, 0.2, 0.3, 0.4]), centre=np.zeros(2), half=np.array([0.1, 0.0]), phase=0.0
    )
    np.testing.assert_allclose(there_and_back[:, 0], [-0.1, 0.0, 0.1, 0.0, -0.1], atol=1e-12)
    figure = lissajous(np.linspace(0, 1, 500), centre=np.zeros(2), radii=(0.05, 0.03), phase=0.0)
    np.testing.assert_allclose(np.abs(figure).max(axis=0), [0.05, 0.03], rtol=1e-3)
    times = np.arange(0, 10, TICK)
    distance = stop_and_go(times, speed=0.1, go=1.0, stop=1.0, phase=0.0, ramp=0.1)
    assert (np.diff(distance) >= 0).all()
    assert distance[-1] == pytest.approx(5 * 0.1 * (1.0 - 0.1), rel=0.02)  # five goes; each ramp loses half its time
    assert np.mean(np.diff(distance) == 0) == pytest.approx(0.5, abs=0.02)
    once = go_between(times, speed=0.1, start=2.0, end=5.0, ramp=0.1)
    assert once[times <= 2.0].max() == 0
    assert np.ptp(once[times >= 5.0]) < 1e-12
    assert once[-1] == pytest.approx(0.1 * (3.0 - 0.1), rel=0.01)  # both ramps lose half their time
    from_the_beginning = go_between(times, speed=0.1, start=0.0, end=5.0)
    assert from_the_beginning[1] == pytest.approx(0.1 * TICK)


def test_objects_stay_on_the_table_and_never_touch(task: str, make_env: MakeEnv) -> None:
    for layout in layouts(make_env(task, cameras=()), 150):
        assert (layout.paths >= REGION[0] - ROUNDING).all()
        assert (layout.paths <= REGION[1] + ROUNDING).all()
        for i, one in enumerate(layout.objects):
            for j in range(i):
                gap = np.linalg.norm(layout.paths[i] - layout.paths[j], axis=1).min()
                assert gap > one.footprint + layout.objects[j].footprint + CLEARANCE


def test_objects_are_where_their_path_says(make_env: MakeEnv) -> None:
    env = make_env("track", cameras=(), labels="none", size=16)
    _, info = env.reset(seed=0)
    for step in range(20):
        secret = info["privileged"]
        expected = env.layout.paths[:, step * 5]
        np.testing.assert_allclose(secret["positions"][:, :2], expected, atol=1e-12)
        ahead = (env.layout.paths[:, step * 5 + 5] - expected) * CONTROL_HZ
        np.testing.assert_allclose(secret["velocities"], ahead, atol=1e-9)
        _, *_, info = env.step(np.zeros(2))


@pytest.mark.parametrize("motion", ["clockwise", "counterclockwise"])
def test_directions_of_turning_are_true_in_the_front_camera(motion: str, make_env: MakeEnv) -> None:
    env = make_env("track_motion", cameras=("front",), size=128)
    for seed in range(3):
        _, info = env.reset(seed=seed, options={"referent": Referent(motion=motion)})
        centres = []
        for _ in range(60):
            secret = info["privileged"]
            centres.append(secret["boxes"]["front"][secret["target"], :2])
            away = np.sign(secret["hand"][:2] - secret["positions"][secret["target"], :2])
            *_, info = env.step(away)  # so that the arm hides nothing of it
        # The picture's y axis points down, so that a turn from x to y runs clockwise as one sees it.
        assert (swept(np.array(centres)) > 0) == (motion == "clockwise")


def test_left_right_and_towards_away_are_true_in_the_front_camera(make_env: MakeEnv) -> None:
    env = make_env("track_motion", cameras=("front",), size=128)
    for seed in range(3):
        for motion, axis in (("left_right", 0), ("towards_away", 1)):
            _, info = env.reset(seed=seed, options={"referent": Referent(motion=motion)})
            target = info["privileged"]["target"]
            centres = []
            for _ in range(50):
                secret = info["privileged"]
                centres.append(secret["boxes"]["front"][target, :2])
                *_, info = env.step(np.sign(secret["hand"][:2] - secret["positions"][target, :2]))
            spread = np.ptp(np.array(centres), axis=0)
            assert spread[axis] > 2.5 * spread[1 - axis]


@pytest.mark.parametrize("motion", NAMED)
def test_the_words_for_a_motion_are_true(motion: str, make_env: MakeEnv) -> None:
    for layout in layouts(make_env("track_motion", cameras=()), 40, motion):
        target = layout.paths[layout.target]
        others = [path for i, path in enumerate(layout.paths) if i != layout.target]
        stands = [float(np.mean(np.linalg.norm(np.diff(path, axis=0), axis=1) < 1e-9)) for path in layout.paths]
        width, depth = np.ptp(target[:, 1]), np.ptp(target[:, 0])
        if motion == "clockwise":
            assert swept(target) < -0.005
            assert all(swept(path) > -1e-6 for path in others)
        elif motion == "counterclockwise":
            assert swept(target) > 0.005
            assert all(swept(path) < 1e-6 for path in others)
        elif motion == "fastest":
            assert travelled(target) > 1.5 * max(map(travelled, others))
        elif motion == "slowest":
            assert travelled(target) < 0.7 * min(map(travelled, others))
        elif motion == "left_right":
            assert width > 0.08
            assert depth < 1e-9
        elif motion == "towards_away":
            assert depth > 0.08
            assert width < 1e-9
        elif motion == "stopping":
            assert 0.25 < stands[layout.target] < 0.6
            assert all(share < 0.01 or share > 0.99 for i, share in enumerate(stands) if i != layout.target)
        else:
            assert motion == "steady"
            assert stands[layout.target] < 0.01
            assert all(share > 0.25 for i, share in enumerate(stands) if i != layout.target)


def test_speeds_are_ordered_with_gaps_and_stops_can_be_seen() -> None:
    assert SPEEDS["slowest"][1] < SPEEDS["medium"][0]
    assert SPEEDS["medium"][1] < SPEEDS["fastest"][0]
    assert STOP[0] >= 4 / CONTROL_HZ


def starts_of(scenes: list[Layout], index: Callable[[Layout], int]) -> np.ndarray:
    return np.array([layout.paths[index(layout), 0] for layout in scenes])


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group[0])
def test_starts_say_nothing_about_the_motion(group: tuple[str, str, str], make_env: MakeEnv) -> None:
    """For every feature a guess from the first frame could use, the target is as often first in order as by chance.

    Placing each object where its own motion fits fails this: "whoever is farther left or right than towards or away
    moves towards and away" was then right in 4 of 5 scenes.
    """
    scenes = layouts(make_env("track_motion", cameras=()), 240, group[0])
    features: dict[str, Callable[[np.ndarray], Any]] = {
        "x": lambda p: p[:, 0],
        "y": lambda p: p[:, 1],
        "edge in x": lambda p: np.abs(p[:, 0]),
        "edge in y": lambda p: np.abs(p[:, 1]),
        "edge in x more than in y": lambda p: np.abs(p[:, 0]) - np.abs(p[:, 1]),
        "distance from the middle": lambda p: np.linalg.norm(p, axis=1),
        "distance from the others": lambda p: np.linalg.norm(p - p.mean(axis=0), axis=1),
    }
    for name, feature in features.items():
        for count in (2, 3) if name != "distance from the others" else (3,):
            of_count = [layout for layout in scenes if len(layout.objects) == count]
            first = sum(int(np.argmax(feature(layout.paths[:, 0]))) == layout.target for layout in of_count)
            assert binomtest(first, len(of_count), 1 / count).pvalue > 1e-3, (name, count, first, len(of_count))


def test_starts_of_the_nameless_object_are_like_the_others(make_env: MakeEnv) -> None:
    scenes = [layout for layout in layouts(make_env("track_motion", cameras=()), 500) if len(layout.objects) == 3]
    third, named = starts_of(scenes, lambda _: 2), starts_of(scenes, lambda layout: layout.target)
    for feature in (lambda p: p[:, 0], lambda p: p[:, 1], lambda p: np.abs(p).max(axis=1)):
        assert ks_2samp(feature(third), feature(named)).pvalue > 1e-3


def test_the_order_of_objects_says_nothing_about_where_they_are(make_env: MakeEnv) -> None:
    for task in ("reach", "track", "track_occlusion", "track_event"):
        scenes = layouts(make_env(task, cameras=()), 120)
        target, other = starts_of(scenes, lambda layout: layout.target), starts_of(scenes, lambda _: 3)
        for feature in (lambda p: p[:, 0], lambda p: p[:, 1], lambda p: np.abs(p).max(axis=1)):
            assert ks_2samp(feature(target), feature(other)).pvalue > 1e-3
