"""Gymnasium's `Reacher-v5` as a task with words: three coloured targets, of which the instruction names one.

A module of one's own, outside of the package. It registers an environment with Gymnasium and describes it as a task:

    vla demo --task-module docs/examples/colour_reacher.py --config docs/examples/colour_reacher.yaml
    python -c "import colour_reacher, gymnasium; gymnasium.make('ColourReacher-v0').reset(seed=0)"

The second line runs beside this file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.mujoco.reacher_v5 import ReacherEnv

from envs.cameras import LookAt
from envs.mujoco_task import MujocoTask
from envs.segments import Thing
from envs.task import TaskSpec, register_task
from envs.words import words_of

COLOURS = {"red": (0.9, 0.1, 0.1, 1.0), "green": (0.1, 0.8, 0.1, 1.0), "blue": (0.1, 0.2, 0.95, 1.0)}
RADIUS = 0.02  # of a target, metres
RING = (0.08, 0.19)  # distance of targets from the arm's base, metres
APART = 0.09  # between two targets, and between the fingertip and a target at the start, metres
TOLERANCE = 0.02  # distance between fingertip and target that counts as touching, metres
HOLD = 5  # control steps in a row
HORIZON = 100  # control steps: 2 s
LINKS = (0.1, 0.11)  # metres

PHRASINGS = {
    "train": ("touch the {it} target", "reach the {it} one", "go to the {it} target", "move to the {it} dot",
              "put the fingertip on the {it} target", "please touch the {it} dot"),
    "held_out": ("bring the fingertip to the {it} dot", "please go to the {it} one", "the {it} target, please"),
}  # fmt: skip


def scene() -> str:
    """Reacher's MJCF with three flat targets that the arm passes over, and an arm of no colour."""
    path = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "reacher.xml"
    spec = mujoco.MjSpec.from_file(str(path))
    for geom in spec.geoms:
        if geom.name in ("root", "link0", "link1", "fingertip"):
            geom.rgba = (1.0, 1.0, 1.0, 1.0) if geom.name == "fingertip" else (0.35, 0.35, 0.38, 1.0)
        elif geom.name == "target":
            geom.rgba = (0.0, 0.0, 0.0, 0.0)  # Gymnasium's own target stays, unseen
        else:
            geom.group = 1  # arena: never in front of a target
    for name, colour in COLOURS.items():
        body = spec.worldbody.add_body(name=name, mocap=True)
        size = (RADIUS, 0.002, 0.0)
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=size, rgba=colour, contype=0, conaffinity=0, pos=(0, 0, 0.002)
        )
    spec.compile()
    return str(spec.to_xml())


class ColourReacher(MujocoTask):
    """Success: the fingertip within 2 cm of the named target for 5 steps in a row, and on no other one before."""

    views: ClassVar[Mapping[str, Any]] = {"top": LookAt(position=(0, 0, 1), target=(0, 0, 0), fovy=26)}
    things: tuple[Thing, ...] = tuple(Thing(bodies=(name,)) for name in COLOURS)
    backdrop_groups: ClassVar[tuple[int, ...]] = (1,)
    agent_pos_names: ClassVar[tuple[str, ...]] = (
        "joint0_cos", "joint1_cos", "joint0_sin", "joint1_sin", "joint0_velocity", "joint1_velocity", "tip_x", "tip_y",
    )  # fmt: skip
    agent_pos_bounds: ClassVar[tuple[Any, Any]] = (
        (-1, -1, -1, -1, -50, -50, -0.3, -0.3),
        (1, 1, 1, 1, 50, 50, 0.3, 0.3),
    )
    horizon: int = HORIZON
    phrasings: ClassVar[tuple[str, ...]] = tuple(PHRASINGS)
    passed_options: ClassVar[tuple[str, ...]] = ("colour",)

    def __init__(self, **settings: Any) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
            file.write(scene())
            file.flush()
            super().__init__(ReacherEnv(xml_file=file.name), **settings)
        self._body = [self.model.body(name).mocapid[0] for name in COLOURS]

    # The episode.

    def begin(self, phrasing: str, options: Mapping[str, Any]) -> tuple[str, int]:
        colours = list(COLOURS)
        self.data.mocap_pos[self._body, :2] = self._places()
        self._near: list[np.ndarray] = []
        self._settled: int | None = None
        target = int(self.rng.integers(len(colours)))
        if "colour" in options:
            target = colours.index(options["colour"])
        return self._say(target, phrasing, self.rng), target

    def agent_pos(self) -> np.ndarray:
        joints, velocities = self.data.qpos[:2], self.data.qvel[:2]
        return np.concatenate([np.cos(joints), np.sin(joints), velocities, self.tip])

    def note(self) -> None:
        self._near.append(np.linalg.norm(self.places - self.tip, axis=1))
        held = (np.array(self._near[-HOLD:]) < TOLERANCE).all(axis=0)
        if self._settled is None and self.step_count >= HOLD and held.any():
            self._settled = int(np.argmax(held))

    def success(self) -> bool:
        return self.judge(self.target)

    def is_over(self) -> bool:
        return self._settled is not None

    # What evaluation may ask for.

    def judge(self, index: int) -> bool:
        """Whether the episode so far succeeds if target `index` was meant."""
        return self._settled == index

    def counterfactual(self, phrasing: str, rng: np.random.Generator) -> tuple[str, int]:
        """Words that mean another target of this very scene, and its index."""
        others = [index for index in range(len(COLOURS)) if index != self.target]
        index = others[rng.integers(len(others))]
        return self._say(index, phrasing, rng), index

    def tracking_errors(self) -> Sequence[float]:
        """Distance between fingertip and target after each step, metres."""
        return [float(distances[self.target]) for distances in self._near[1:]]

    def judged_errors(self) -> Sequence[float]:
        """The same in the steps in which the fingertip ought to be on the target: the last ones."""
        return self.tracking_errors()[-HOLD:]

    @property
    def target_name(self) -> str:
        return f"{list(COLOURS)[self.target]} target"

    # What the expert reads.

    @property
    def tip(self) -> np.ndarray:
        """The fingertip, (2,) metres."""
        place: np.ndarray = self.data.body("fingertip").xpos[:2]
        return place.copy()

    @property
    def places(self) -> np.ndarray:
        """The targets, (3, 2) metres."""
        found: np.ndarray = self.data.mocap_pos[self._body, :2]
        return found

    def _places(self) -> np.ndarray:
        while True:
            angle, distance = self.rng.uniform(-np.pi, np.pi, 3), self.rng.uniform(*RING, 3)
            places = distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
            points = np.vstack([places, self.data.body("fingertip").xpos[:2]])
            gaps = np.linalg.norm(points[:, None] - points, axis=2)[np.triu_indices(4, 1)]
            if gaps.min() > APART:
                return places

    def _say(self, index: int, phrasing: str, rng: np.random.Generator) -> str:
        texts = PHRASINGS[phrasing]
        return texts[rng.integers(len(texts))].format(it=list(COLOURS)[index])


# The expert: the nearer of the arm's two ways to reach a point, by a critically damped pull on both joints.

FREQUENCY = 14.0  # rad/s
GEAR = 200.0  # torque at action 1


def expert(env: gymnasium.Env[Any, Any], info: dict[str, Any]) -> np.ndarray:
    """The torques towards the target, (2,) in [-1, 1]."""
    data, place = env.get_wrapper_attr("data"), env.get_wrapper_attr("places")[info["privileged"]["target"]]
    joints, velocities = data.qpos[:2], data.qvel[:2]
    ways = [joint_angles(place, bend) - joints for bend in (1, -1)]
    for way in ways:
        way[0] = (way[0] + np.pi) % (2 * np.pi) - np.pi  # the base turns without a limit
    gap = min(ways, key=lambda way: float(np.abs(way).max()))
    torque = FREQUENCY**2 * gap - 2 * FREQUENCY * velocities
    action: np.ndarray = np.clip(torque / GEAR, -1, 1).astype(np.float32)
    return action


def joint_angles(place: np.ndarray, bend: int) -> np.ndarray:
    """Angles (2,) in radians with the fingertip at (x, y), the elbow bent to one side or the other."""
    first, second = LINKS
    cosine = (place @ place - first**2 - second**2) / (2 * first * second)
    elbow = bend * np.arccos(np.clip(cosine, -1, 1))
    shoulder = np.arctan2(place[1], place[0]) - np.arctan2(second * np.sin(elbow), first + second * np.cos(elbow))
    return np.array([shoulder, elbow])


def read(text: str) -> dict[str, str]:
    """Reset options for a user's own words.

    Raises:
        ValueError: they do not name one of the colours.
    """
    named = [colour for colour in COLOURS if colour in words_of(text).split()]
    if len(named) != 1:
        raise ValueError(f"instruction {text!r} must name one of {', '.join(COLOURS)}, names {len(named)}")
    return {"colour": named[0]}


gymnasium.register("ColourReacher-v0", entry_point=f"{__name__}:ColourReacher", max_episode_steps=HORIZON)
register_task(
    TaskSpec(
        name="colour_reacher",
        env_id="ColourReacher-v0",
        success="fingertip within 2 cm of the target for a tenth of a second, on no other one before",
        example="touch the red target",
        horizon=HORIZON,
        control_hz=50,
        cameras=tuple(ColourReacher.views),
        action_names=("torque0", "torque1"),
        agent_pos_names=ColourReacher.agent_pos_names,
        takes=("labels",),
        expert=f"{__name__}:expert",
        reader=f"{__name__}:read",
        verbs=("touch", "target"),
        tolerance=TOLERANCE,
    )
)
