"""Tasks that share a scene with another one, and whether the other one is done there.

A sister is offered where its words mean something in the scene as it is, and where what they ask for stays done or
undone while nobody moves: an open door swings, so that `door-close` has none. In some scenes a sister is done from the
start, such as "close the drawer" before a closed one: to follow the words is then to leave it as it is. What counts as
done is Meta-World's own rule; a test holds each one here to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Done = Callable[[], bool]

# Of a scene: the task that its other words are of.
SISTERS: dict[str, str] = {
    "coffee-pull": "coffee-button",
    "coffee-push": "coffee-button",
    "disassemble": "assembly",
    "door-lock": "door-unlock",
    "door-open": "door-close",
    "door-unlock": "door-lock",
    "drawer-close": "drawer-open",
    "drawer-open": "drawer-close",
    "faucet-close": "faucet-open",
    "faucet-open": "faucet-close",
    "handle-press": "handle-pull",
    "handle-press-side": "handle-pull-side",
    "handle-pull": "handle-press",
    "handle-pull-side": "handle-press-side",
    "pick-place": "reach",
    "pick-place-wall": "reach-wall",
    "plate-slide": "plate-slide-back",
    "plate-slide-back": "plate-slide",
    "plate-slide-back-side": "plate-slide-side",
    "plate-slide-side": "plate-slide-back-side",
    "push": "reach",
    "push-wall": "reach-wall",
    "window-close": "window-open",
    "window-open": "window-close",
}


class Scene:
    """Where things are in a simulation, by name, or beside there: positions (3,) in metres."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def body(self, name: str, *shift: float) -> np.ndarray:
        return np.array(self._data.body(name).xpos) + (shift or 0)

    def geom(self, name: str) -> np.ndarray:
        return np.array(self._data.geom(name).xpos)

    def site(self, name: str, *shift: float) -> np.ndarray:
        return np.array(self._data.site(name).xpos) + (shift or 0)

    @property
    def fingers(self) -> np.ndarray:
        """The middle between the fingertips."""
        return (self.site("rightEndEffector") + self.site("leftEndEffector")) / 2


def _near(place: np.ndarray, goal: np.ndarray, radius: float) -> bool:
    return bool(np.linalg.norm(place - goal) <= radius)


def _assembly(scene: Scene) -> Done:
    def done() -> bool:
        nut, peg = scene.site("RoundNut"), scene.body("peg", 0, 0, 0.05)
        return bool(np.linalg.norm(peg[:2] - nut[:2]) < 0.02 and peg[2] > nut[2])

    return done


def _coffee_button(scene: Scene) -> Done:
    goal = scene.body("coffee_machine")[1] - 0.19
    return lambda: abs(scene.site("buttonStart")[1] - goal) <= 0.02


def _door_close(scene: Scene) -> Done:
    return lambda: _near(scene.geom("handle"), scene.body("door", 0.2, -0.2, 0), 0.08)


def _door_open(scene: Scene) -> Done:
    return lambda: bool(abs(scene.geom("handle")[0] - (scene.body("door")[0] - 0.3)) <= 0.08)


def _door_lock(scene: Scene) -> Done:
    return lambda: bool(abs(scene.site("lockStartLock")[2] - (scene.body("lock_link")[2] - 0.1)) <= 0.02)


def _door_unlock(scene: Scene) -> Done:
    return lambda: bool(abs(scene.site("lockStartUnlock")[0] - (scene.body("lock_link")[0] + 0.1)) <= 0.02)


def _drawer(pulled: float, height: float, radius: float) -> Callable[[Scene], Done]:
    def of(scene: Scene) -> Done:
        def done() -> bool:
            goal = scene.body("drawer", 0, -0.16 - pulled, 0.09)
            return _near(scene.body("drawer_link", 0, -0.16, height), goal, radius)

        return done

    return of


def _faucet_close(scene: Scene) -> Done:
    goal = scene.body("faucetBase", -0.175, 0, 0.125)
    return lambda: _near(scene.site("handleStartClose", 0, 0, -0.01), goal, 0.07)


def _faucet_open(scene: Scene) -> Done:
    goal = scene.body("faucetBase", 0.175, 0, 0.125)
    return lambda: _near(scene.site("handleStartOpen", -0.04, 0, 0.02), goal, 0.07)


def _handle_press(scene: Scene) -> Done:
    return lambda: bool(abs(scene.site("handleStart")[2] - scene.site("goalPress")[2]) <= 0.02)


def _handle_pull(scene: Scene) -> Done:
    return lambda: bool(abs(scene.site("handleRight")[2] - scene.site("goalPull")[2]) <= 0.05)


def _handle_pull_side(scene: Scene) -> Done:
    return lambda: _near(scene.site("handleCenter"), scene.site("goalPull"), 0.08)


def _plate_stays(scene: Scene) -> Done:
    """The plate is where its sister would take it: it lies there at the start."""
    start = scene.geom("puck")
    return lambda: _near(scene.geom("puck"), start, 0.07)


def _reach(scene: Scene) -> Done:
    return lambda: _near(scene.fingers, scene.site("goal"), 0.05)


def _window(site: str, along: float) -> Callable[[Scene], Done]:
    return lambda scene: lambda: bool(abs(scene.site(site)[0] - scene.body("window")[0] - along) <= 0.05)


# Of each sister: from the scene at the start to whether it is done now.
DONE: Mapping[str, Callable[[Scene], Done]] = {
    "assembly": _assembly,
    "coffee-button": _coffee_button,
    "door-close": _door_close,
    "door-lock": _door_lock,
    "door-open": _door_open,
    "door-unlock": _door_unlock,
    "drawer-close": _drawer(0.0, 0.05, 0.065),
    "drawer-open": _drawer(0.2, 0.0, 0.03),
    "faucet-close": _faucet_close,
    "faucet-open": _faucet_open,
    "handle-press": _handle_press,
    "handle-press-side": _handle_press,
    "handle-pull": _handle_pull,
    "handle-pull-side": _handle_pull_side,
    "plate-slide": _plate_stays,
    "plate-slide-back": _plate_stays,
    "plate-slide-back-side": _plate_stays,
    "plate-slide-side": _plate_stays,
    "reach": _reach,
    "reach-wall": _reach,
    "window-close": _window("handleCloseStart", 0.0),
    "window-open": _window("handleOpenStart", 0.2),
}
