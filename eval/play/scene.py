"""The scene in 3D, drawn by mjviser in one browser tab, with things that the mouse can take hold of."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import viser
from mjviser import ViserMujocoScene

from eval.report.overlay import TRUE_BOX

GRIP = 0.05  # radius of the ball around a thing by which the mouse takes hold of it, metres
MARKED, UNMARKED = 0.35, 0.0  # opacity of that ball around what the words mean, and around the others
FAR, FIELD = 1.7, 0.75  # where people look from at first: metres away, and how much they see, radians
FRONT = np.array([1.0, 0.25, 0.85])  # from where they look if the model's first camera is of no use
# What of a model an episode may rewrite, and what is drawn of it once and for all.
LOOKS = (
    "geom_rgba", "geom_group", "geom_size", "geom_pos", "mat_rgba", "site_rgba", "site_pos", "body_pos", "body_quat",
)  # fmt: skip

OnMove = Callable[[int, np.ndarray | None], None]  # a thing, and where it is put, None once it is let go


class Scene:
    """What one tab shows of a simulation.

    Args:
        client: the tab.
        on_move: told when somebody drags a thing; called in the server's event loop, so it must return at once.
    """

    def __init__(self, client: viser.ClientHandle, on_move: OnMove) -> None:
        self._client, self._on_move = client, on_move
        self._drawn: ViserMujocoScene | None = None
        self._looks: tuple[Any, ...] = ()
        self._grips: dict[int, viser.IcosphereHandle] = {}

    def show(
        self, model: mujoco.MjModel, data: mujoco.MjData, places: dict[int, np.ndarray], meant: int | None
    ) -> None:
        """The simulation as it is now.

        Args:
            places: where the things are that can be moved, (3,) metres each. meant: which of them the words mean.
        """
        looks = (id(model), *(getattr(model, name).tobytes() for name in LOOKS))
        with self._client.atomic():
            if looks != self._looks or self._drawn is None:
                self._build(model)
                self._looks = looks
            assert self._drawn is not None
            if set(places) != set(self._grips):
                self._make_grips(places)
            for thing, place in places.items():
                self._grips[thing].position = place
                self._grips[thing].opacity = MARKED if thing == meant else UNMARKED
            self._drawn.update_from_mjdata(data)

    def look_from(self, model: mujoco.MjModel, data: mujoco.MjData, camera: str, centre: np.ndarray) -> None:
        """Let the person look at a point (3,) in metres from where a camera of the model is, if it has that one."""
        number = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, camera)
        away = FRONT if number < 0 else data.cam_xpos[number] - centre
        self._client.camera.position = centre + FAR * away / np.linalg.norm(away)
        self._client.camera.look_at = centre
        self._client.camera.fov = FIELD

    def _build(self, model: mujoco.MjModel) -> None:
        """Send all shapes anew. The library writes into the model that it draws, so it gets a copy."""
        self._client.scene.reset()
        self._grips = {}
        self._drawn = ViserMujocoScene(self._client, copy.copy(model), num_envs=1)
        self._drawn.camera_tracking_enabled = False

    def _make_grips(self, places: dict[int, np.ndarray]) -> None:
        for grip in self._grips.values():
            grip.remove()
        self._grips = {
            thing: self._client.scene.add_icosphere(
                f"/grips/{thing}",
                radius=GRIP,
                color=TRUE_BOX,
                opacity=UNMARKED,
                material="toon3",  # which does not shine where it is transparent
                cast_shadow=False,
                receive_shadow=False,
                position=place,
            )
            for thing, place in places.items()
        }
        for thing, grip in self._grips.items():
            grip.on_drag(self._dragging(thing))

    def _dragging(self, thing: int) -> Callable[[Any], Any]:
        async def dragged(event: viser.SceneNodeDragEvent[Any]) -> None:  # async: called in order
            if event.phase == "end":
                self._on_move(thing, None)
                return
            height = float(event.target.position[2])
            self._on_move(thing, on_plane(event.client.camera.position, np.array(event.end_position), height))

        return dragged


def on_plane(eye: np.ndarray, point: np.ndarray, height: float) -> np.ndarray:
    """Where the line of sight from an eye through a point meets the horizontal plane at a height, all (3,) metres; the
    point at that height where it does not.
    """
    down = point[2] - eye[2]
    share = (height - eye[2]) / down if abs(down) > 1e-6 else 1.0
    if share <= 0:
        share = 1.0
    met: np.ndarray = eye + share * (point - eye)
    met[2] = height
    return met
