"""How things are taken hold of where Meta-World's scripted policies cannot be asked in every state.

A scripted policy tells from distances alone whether it holds a thing. That serves who follows it from the start. Where
another policy led, the answer can be wrong for good: with closed fingers on top of a thing it goes on pressing, and
with a thing held a few millimetres too low it goes down where it should carry. Labels of such states teach a policy to
stay there. Here both fingers' contacts tell what is held, and closed fingers are lifted and opened.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GAIN = 25.0  # full speed from 4 cm on, as most scripted policies
OPEN, CLOSE = -1.0, 1.0
ABOVE = 0.1  # metres over the place from which the hand goes straight down
LOW = 0.03  # metres over the place: nearer to it, the hand would push the thing aside, and goes up first
EMPTY = 0.315  # opening of the gripper below which there is nothing between the fingers
WIDE = 0.75  # opening of the gripper from which the fingers fit around a thing
DRAG_HEIGHT = 0.055  # of the hand, in metres, as low as it comes everywhere


@dataclass(frozen=True, kw_only=True)
class Grasp:
    """Lengths in metres.

    Args:
        place: of the hand, from the thing's position, where the fingers are closed.
        near: distance across from there up to which the hand goes down.
        reach: height over the place up to which the fingers are closed; the table may be in the way below.
        across, height: how far from the place the scripted policy takes a thing as held, with a margin.
        drag: what is held is drawn along the table to the goal. Else the scripted policy says where it goes.
    """

    place: tuple[float, float, float] = (0.0, 0.0, 0.0)
    near: float = 0.02
    reach: float = 0.02
    across: float = 0.03
    height: float = 0.02
    drag: bool = False


# By the name of the scripted policy.
GRASPS = {
    "basketball": Grasp(place=(0, 0, 0.01), reach=0.012, height=0.018),
    "disassemble": Grasp(place=(-0.02, 0, 0.01), near=0.015, across=0.015),
    "handle-pull-side": Grasp(reach=0.025),
    "peg-insert-side": Grasp(reach=0.024, height=0.018),
    "pick-out-of-hole": Grasp(place=(0, 0, 0.02), near=0.015, reach=0.008, across=0.015, height=0.007),
    "push-back": Grasp(reach=0.045, drag=True),
    "shelf-place": Grasp(place=(-0.005, 0, 0.015), height=0.03),
    "soccer": Grasp(reach=0.03, drag=True),
    "stick-pull": Grasp(place=(-0.015, 0, 0.03), near=0.015, reach=0.012, across=0.015, height=0.015),
}


def approach(grasp: Grasp, state: np.ndarray) -> np.ndarray:
    """What takes hold of the thing, which is not held: (4,) float64, not cut.

    Args:
        state: of Meta-World (39,).
    """
    hand, opening, place = state[:3], state[3], state[4:7] + grasp.place
    off = hand - place
    above = place + np.array([0, 0, ABOVE])
    if np.linalg.norm(off[:2]) > grasp.near:
        to = np.array([*hand[:2], above[2]]) if off[2] < LOW else above
        return _go(hand, to, OPEN)
    if off[2] <= grasp.reach and opening > EMPTY:
        return _go(hand, place, CLOSE)
    return _go(hand, above if opening < WIDE else place, OPEN)


def drag(state: np.ndarray) -> np.ndarray:
    """What draws the thing that is held to the goal: as `approach`."""
    return _go(state[:3], np.array([*state[-3:-1], DRAG_HEIGHT]), CLOSE)


def as_held(grasp: Grasp, state: np.ndarray) -> np.ndarray:
    """The state, with the thing so near to the hand that the scripted policy takes it as held."""
    off = state[:3] - (state[4:7] + grasp.place)
    off[:2] *= min(1.0, grasp.across / max(float(np.linalg.norm(off[:2])), 1e-9))
    off[2] = np.clip(off[2], -grasp.height, grasp.height)
    told = state.copy()
    told[4:7] = state[:3] - off - grasp.place
    return told


def _go(hand: np.ndarray, to: np.ndarray, gripper: float) -> np.ndarray:
    return np.array([*GAIN * (to - hand), gripper])
