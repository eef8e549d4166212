"""`track_occlusion`: as `track`, while the target passes out of sight under a screen and comes out again."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from envs.tabletop.arm import RAMP
from envs.tabletop.episode import Layout
from envs.tabletop.instructions import Referent
from envs.tabletop.motion import CLEARANCE, REGION, bounce
from envs.tabletop.objects import Combinations, TableObject, crossed_objects
from envs.tabletop.props import under_screen
from envs.tabletop.scene import SCREEN_HALF_WIDTH
from envs.tabletop.tasks.track import HORIZON, JUDGED_SHARE, TrackEnv, path_times, tracked

JUDGED_STEPS = round(HORIZON * JUDGED_SHARE)
SCREEN_SHIFT = 0.015  # of the screen's middle, to either side, metres
SECONDS_HIDDEN = (0.48, 0.68)  # each time, the whole circle that holds the object; the speed follows from it
MARGIN = 0.01  # between the screen and an object that turns around, at least, metres
HIDDEN_TOLERANCE = 0.03  # horizontal distance while the target is hidden, metres
HIDDEN_SHARE = 0.8  # of the judged steps in which it is hidden must be within that


class TrackOcclusionEnv(TrackEnv):
    """Success: as in `track`, and within 3 cm in 80 % of the judged steps in which the screen hides the target.

    Four small objects bounce between left and right, each on a lane and at a speed of its own, under a screen in the
    middle. They turn around in plain sight only, so that whoever remembers where one went under knows where it is.
    Waiting over the screen's middle is within 3 cm for two thirds of that time, waiting where it went under for less.
    """

    task: ClassVar[str] = "track_occlusion"

    def sample_layout(self, combinations: Combinations, referent: Referent | None) -> Layout:
        rng = self.np_random
        crossed = crossed_objects(rng, combinations, referent.pair if referent else None)
        objects = [replace(one, size="small") for one in crossed]  # four lanes of large ones do not fit
        screen = rng.uniform(-SCREEN_SHIFT, SCREEN_SHIFT)
        lanes = _lanes(rng, [one.footprint for one in objects])
        times = path_times()
        paths = np.stack([_path(rng, one, x, screen, times) for one, x in zip(objects, lanes, strict=True)])
        referents: list[Referent | None] = [Referent(colour=o.colour, shape=o.shape) for o in objects]
        return Layout(objects=objects, paths=paths, target=0, referents=referents, screen=screen)

    def judge(self, index: int) -> bool:
        return tracked(self.metrics, index) and not self.fault(index)

    def fault(self, index: int) -> str:
        if not tracked(self.metrics, index):
            return ""
        judged = hidden_steps(self.layout, index)
        judged[:-JUDGED_STEPS] = False
        near = self.metrics.errors[judged, index] <= HIDDEN_TOLERANCE
        return "" if np.count_nonzero(near) >= HIDDEN_SHARE * len(near) else "lost the target under the screen"


def hidden_steps(layout: Layout, index: int) -> np.ndarray:
    """Whether the screen hides object `index` after each of 0 to HORIZON control steps, (HORIZON + 1,) bool."""
    assert layout.screen is not None
    return _hidden(layout.objects[index], layout.paths[index, : HORIZON * RAMP + 1 : RAMP, 1], layout.screen)


def _hidden(one: TableObject, y: np.ndarray, screen: float) -> np.ndarray:
    return under_screen(screen, y, radius=one.footprint, height=2 * one.half_height)


def _lanes(rng: np.random.Generator, footprints: list[float]) -> np.ndarray:
    """x of every object's lane, (n,) metres: in random order, with random gaps between lanes that do not touch."""
    order = rng.permutation(len(footprints))
    widths = np.array([footprints[i] for i in order])
    least = np.concatenate([[0.0], np.cumsum(widths[:-1] + widths[1:] + 2 * CLEARANCE)])
    spare = REGION[1, 0] - REGION[0, 0] - least[-1]
    lanes = np.empty(len(order))
    lanes[order] = REGION[0, 0] + least + spare * np.sort(rng.uniform(size=len(order)))
    return lanes


def _path(rng: np.random.Generator, one: TableObject, x: float, screen: float, times: np.ndarray) -> np.ndarray:
    """A path `(K, 2)` along a lane: in sight at first, and hidden in the judged steps at least once.

    It is in sight in the first and the last judged step: of half a passage, waiting would cover too much.
    """
    places = np.linspace(REGION[0, 1], REGION[1, 1], 1000)
    length = np.mean(_hidden(one, places, screen)) * (places[-1] - places[0])
    beyond = SCREEN_HALF_WIDTH + one.footprint + MARGIN
    while True:
        low, high = rng.uniform(REGION[0, 1], screen - beyond), rng.uniform(screen + beyond, REGION[1, 1])
        centre, half = np.array([x, (low + high) / 2]), np.array([0.0, (high - low) / 2])
        speed = length / rng.uniform(*SECONDS_HIDDEN)
        path = bounce(speed * times, centre=centre, half=half, phase=rng.uniform())
        hidden = _hidden(one, path[: HORIZON * RAMP + 1 : RAMP, 1], screen)
        judged = hidden[-JUDGED_STEPS:]
        if judged.any() and not (hidden[0] or judged[0] or judged[-1]):
            return path
