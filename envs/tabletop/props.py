"""Things in a scene that no words single out: a screen to pass under, and a lamp that turns from red to green.

Neither touches anything. The screen is a flat roof across the whole table along x, so that whatever moves left or right
far enough passes under it.
"""

from __future__ import annotations

import mujoco
import numpy as np

from envs.tabletop.scene import (
    CAMERA_DISTANCE,
    CAMERA_ELEVATION,
    CAMERA_TARGET,
    HIDDEN_GROUP,
    LAMP_COLOURS,
    SCREEN_HALF_WIDTH,
    SCREEN_HEIGHT,
)

_SCREEN, _LAMP = ("screen",), ("lamp/base", "lamp/head")
_CAMERA_HEIGHT = CAMERA_TARGET[2] + CAMERA_DISTANCE * np.sin(CAMERA_ELEVATION)


def show_props(model: mujoco.MjModel, *, screen: float | None, lamp: bool) -> None:
    """Show or hide the props (in place): the screen with its middle at y = `screen` in metres, and the lamp, red."""
    for names, shown in ((_SCREEN, screen is not None), (_LAMP, lamp)):
        for name in names:
            model.geom(name).group[:] = 0 if shown else HIDDEN_GROUP
    model.geom("screen").pos[1] = screen or 0.0
    light_lamp(model, green=False)


def light_lamp(model: mujoco.MjModel, *, green: bool) -> None:
    """Make the lamp green or red (in place)."""
    model.geom("lamp/head").rgba[:3] = LAMP_COLOURS["green" if green else "red"]


def under_screen(screen: float, y: np.ndarray, *, radius: float, height: float) -> np.ndarray:
    """Whether the screen wholly hides an object from the front camera, bool as `y`.

    Args:
        screen: y of the screen's middle, metres.
        y: where the object's centre is, metres. Where it is along x does not matter: the screen spans the table.
        radius: of the circle that holds the object seen from above, metres; height: of its top, metres.

    The front camera is taken to be where it is without randomisation. As hardly any object fills its circle, some are
    out of sight a moment before this says so, and none after.
    """
    hidden = np.ones(np.shape(y), dtype=np.bool_)
    for z in (0.0, height):
        scale = (_CAMERA_HEIGHT - SCREEN_HEIGHT) / (_CAMERA_HEIGHT - z)  # of what is drawn at the screen's height
        for edge in (-radius, radius):
            hidden &= np.abs((y + edge) * scale - screen) <= SCREEN_HALF_WIDTH
    return hidden
