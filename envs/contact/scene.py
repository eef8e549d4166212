"""The MuJoCo model of the tasks with contact: the table and arm of `envs.tabletop`, bodies that move when something
pushes them, fixtures that stand still, and turntables.

Nothing is welded, teleported or attached: what moves a body is the fingers, the table and its weight. An episode uses
some of the bodies and fixtures; the others wait below the floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from envs.tabletop.scene import arm_actuators, arm_body, arm_defaults, room, visuals

TIMESTEP = 0.0025  # half of the other tasks': what is gripped and pushed needs it
BELOW = -5.0  # metres: where what is not used waits, without weight
MAT_HALF = 0.05  # of a mat's side, metres
BOWL_RADIUS, BOWL_HEIGHT = 0.05, 0.025  # of its inside, and of its wall, metres
WALLS = 12  # straight pieces that a bowl's wall is made of
DISC_RADIUS, DISC_TOP = 0.085, 0.012  # of a turntable, and the height of its top, metres
WRIST_AXES = "0 -1 0 0.985 0 -0.174"  # of its camera: it sees what is between the fingers, too
NEAR = 0.005  # of the extent, 6 m: what is between the fingers is drawn
INERTIA = 10.0  # kg m2: so heavy that nothing on it slows it down


@dataclass(frozen=True, kw_only=True)
class Part:
    """A thing of a scene: its name, the MJCF of its geoms, and the height of its middle above the table, metres."""

    name: str
    geoms: str
    height: float


def cube(name: str, half: float) -> Part:
    """A free cube, its half side in metres, as heavy as hard wood."""
    mass = 640 * (2 * half) ** 3
    return Part(
        name=name, geoms=f'<geom type="box" size="{half} {half} {half}" mass="{mass:.4f}" class="free"/>', height=half
    )


def ball(name: str, radius: float) -> Part:
    """A free ball, its radius in metres, as heavy as hard wood; it rolls, but not for long."""
    mass = 640 * 4 / 3 * np.pi * radius**3
    geom = f'<geom type="sphere" size="{radius}" mass="{mass:.4f}" class="free" condim="6" friction="0.8 0.01 0.002"/>'
    return Part(name=name, geoms=geom, height=radius)


def mat(name: str) -> Part:
    """A square on the table that touches nothing."""
    thin = 0.001
    geom = f'<geom type="box" size="{MAT_HALF} {MAT_HALF} {thin}" contype="0" conaffinity="0"/>'
    return Part(name=name, geoms=geom, height=thin)


def bowl(name: str) -> Part:
    """A round dish with a wall."""
    thin, middle = 0.002, BOWL_HEIGHT / 2
    length = BOWL_RADIUS * np.tan(np.pi / WALLS) + thin
    walls = "".join(
        f'<geom type="box" size="{thin} {length:.4f} {middle}" '
        f'pos="{(BOWL_RADIUS + thin) * np.cos(a):.4f} {(BOWL_RADIUS + thin) * np.sin(a):.4f} {middle - thin:.4f}" '
        f'euler="0 0 {a:.4f}" class="fixed"/>'
        for a in np.arange(WALLS) * 2 * np.pi / WALLS
    )
    return Part(
        name=name, geoms=f'<geom type="cylinder" size="{BOWL_RADIUS} {thin}" class="fixed"/>{walls}', height=thin
    )


def scene_xml(bodies: Sequence[Part], fixtures: Sequence[Part], turntables: Sequence[tuple[float, float]] = ()) -> str:
    """The MJCF text of the whole scene, with turntables at (x, y) in metres."""
    discs = "".join(
        f"""
    <body name="turntable{i}" pos="{x} {y} {DISC_TOP / 2}">
      <joint name="turntable{i}" axis="0 0 1" armature="{INERTIA}"/>
      <geom type="cylinder" size="{DISC_RADIUS} {DISC_TOP / 2}" rgba="0.42 0.46 0.52 1" class="fixed"/>
      <geom type="box" size="0.008 0.008 0.0005" pos="{0.85 * DISC_RADIUS} 0 {DISC_TOP / 2}" rgba="0.9 0.9 0.9 1"
        contype="0" conaffinity="0"/>
    </body>"""
        for i, (x, y) in enumerate(turntables)
    )
    free = "".join(
        f"""
    <body name="{part.name}" pos="{i} 0 {BELOW}" gravcomp="1">
      <freejoint name="{part.name}"/>
      {part.geoms}
    </body>"""
        for i, part in enumerate(bodies)
    )
    fixed = "".join(
        f"""
    <body name="{part.name}" mocap="true" pos="{i} 1 {BELOW}">
      {part.geoms}
    </body>"""
        for i, part in enumerate(fixtures)
    )
    return f"""
<mujoco model="vla contact">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{TIMESTEP}" integrator="implicitfast" jacobian="dense" cone="elliptic" impratio="10"
    iterations="20"/>
  {visuals(NEAR)}
  <default>
    {arm_defaults()}
    <default class="free">
      <geom contype="3" conaffinity="3" condim="4" friction="0.8 0.01 0.001"/>
    </default>
    <default class="fixed">
      <geom contype="2" conaffinity="1" friction="0.8 0.01 0.001"/>
    </default>
  </default>
  <worldbody>
    {room()}
    {arm_body(WRIST_AXES)}
    {discs}
    {free}
    {fixed}
  </worldbody>
  {arm_actuators()}
</mujoco>"""


class Props:
    """The bodies and fixtures of one simulation, N and M of them: puts them in place, and says where they are."""

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, bodies: Sequence[Part], fixtures: Sequence[Part]
    ) -> None:
        self._model, self._data, self._parts, self._fixed = model, data, bodies, fixtures
        self._bodies = np.array([model.body(part.name).id for part in bodies])
        self._mocaps = np.array([model.body(part.name).mocapid[0] for part in fixtures], np.int64)
        self._geoms = [np.flatnonzero(model.geom_bodyid == model.body(part.name).id) for part in (*bodies, *fixtures)]
        self._qpos = np.array([model.joint(part.name).qposadr[0] for part in bodies])
        self._dofs = np.array([model.joint(part.name).dofadr[0] for part in bodies])
        fingers = [model.body(f"{side}_finger").id for side in ("left", "right")]
        self._of_finger = {
            int(geom): side for side, body in enumerate(fingers) for geom in np.flatnonzero(model.geom_bodyid == body)
        }
        self._of_body = {int(geom): i for i, geoms in enumerate(self._geoms[: len(bodies)]) for geom in geoms}

    def put_body(
        self, index: int, place: np.ndarray | None, yaw: float, colour: np.ndarray, *, on: float = 0.0
    ) -> None:
        """Put a body at `place` (2,) metres, turned by `yaw` radians, its colour (3,) in [0, 1]; None takes it away.

        Args:
            on: height of what it lies on, metres.
        """
        first = self._qpos[index]
        self._model.body_gravcomp[self._bodies[index]] = 1.0 if place is None else 0.0
        where = (index, 0.0, BELOW) if place is None else (*place, on + self._parts[index].height)
        self._data.qpos[first : first + 3] = where
        self._data.qpos[first + 3 : first + 7] = (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
        self._model.geom_rgba[self._geoms[index], :3] = colour

    def put_fixture(self, index: int, place: np.ndarray | None, colour: np.ndarray) -> None:
        """Put a fixture at `place` (2,) metres, or away."""
        where = (index, 1.0, BELOW) if place is None else (*place, self._fixed[index].height)
        self._data.mocap_pos[self._mocaps[index]] = where
        self._model.geom_rgba[self._geoms[len(self._parts) + index], :3] = colour

    @property
    def bodies(self) -> np.ndarray:
        """Where the middles of all bodies are, `(N, 3)` metres."""
        positions: np.ndarray = self._data.qpos[self._qpos[:, None] + np.arange(3)]
        return positions

    @property
    def yaws(self) -> np.ndarray:
        """How far the bodies are turned about the vertical, `(N,)` radians."""
        w, x, y, z = self._data.qpos[self._qpos[:, None] + np.arange(3, 7)].T
        turned: np.ndarray = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        return turned

    @property
    def fixtures(self) -> np.ndarray:
        """Where the fixtures are, `(M, 3)` metres."""
        positions: np.ndarray = self._data.mocap_pos[self._mocaps]
        return positions

    @property
    def velocities(self) -> np.ndarray:
        """Of the bodies' middles, `(N, 3)` metres a second."""
        velocities: np.ndarray = self._data.qvel[self._dofs[:, None] + np.arange(3)]
        return velocities

    @property
    def turning(self) -> np.ndarray:
        """How fast the bodies turn about the vertical, `(N,)` radians a second."""
        rates: np.ndarray = self._data.qvel[self._dofs + 5]
        return rates

    @property
    def speeds(self) -> np.ndarray:
        """Of the bodies' middles, `(N,)` metres a second."""
        return np.linalg.norm(self.velocities, axis=1)

    def spin(self, index: int, rate: float) -> None:
        """Let a turntable turn, counterclockwise seen from above, in radians a second."""
        self._data.qvel[self._model.joint(f"turntable{index}").dofadr[0]] = rate

    def push(self, index: int, velocity: np.ndarray, turning: float) -> None:
        """Give a body a velocity (2,), metres a second, and let it turn, radians a second."""
        first = self._dofs[index]
        self._data.qvel[first : first + 6] = (*velocity, 0.0, 0.0, 0.0, turning)

    def touching(self) -> np.ndarray:
        """Which bodies the left and the right finger touch now, `(N, 2)` bool."""
        found = np.zeros((len(self._parts), 2), np.bool_)
        for pair in self._data.contact.geom.tolist():
            for finger, other in (pair, pair[::-1]):
                if finger in self._of_finger and other in self._of_body:
                    found[self._of_body[other], self._of_finger[finger]] = True
        return found
