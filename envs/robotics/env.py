"""Fetch's tasks as this project's: pictures, words, labels and outcomes around Gymnasium-Robotics' own simulation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import mujoco
import numpy as np

from envs.cameras import CameraSpec, LookAt
from envs.foresight import foresee
from envs.mujoco_task import MujocoTask
from envs.robotics.fetch import Fetch
from envs.robotics.instructions import name_of, say
from envs.robotics.specs import AGENT_POS, CAMERAS, HORIZON
from envs.segments import Thing

# Parts of the robot that nothing on the table is behind, seen from these cameras: three quarters of the triangles.
BEHIND = (
    "base_link", "estop_link", "head_pan_link", "head_tilt_link", "laser_link", "torso_fixed_link", "torso_lift_link",
)  # fmt: skip
BACKDROP, HIDDEN = 2, 3  # groups of geoms that the model does not use; the second one is never drawn
GRIPPER = "gripper_camera_rgb"
HANDLE = "robot0:mocap"  # by which the simulation pulls the hand: a green cross with arms of two metres

BLOCK = Thing(bodies=("object0",))
MARKER = Thing(sites=("target0",))


class FetchTask(MujocoTask):
    """Reach the marker with the hand. Success: the environment says so after any step, which ends the episode.

    The policy sees pictures, where the hand is, and how far the gripper is open. `info["privileged"]` has for experts:
    `hand`, `aim`, where hand or block are to be, and in scenes with a block `block`, all (3,) in metres; `opening`,
    metres; and `goal`, which of the things is the marker.

    Args:
        name: of the task, for example "reach".
        settings: cameras, size, labels and render_mode of `MujocoTask`.
    """

    # Our own. The first two stand in front of the table, to its left and right: what the arm hides from one, the other
    # mostly sees, and together they tell how far away things are.
    views: ClassVar[Mapping[str, CameraSpec]] = dict(
        zip(
            CAMERAS,
            (
                LookAt(position=(2.0, 1.43, 1.1), target=(1.34, 0.75, 0.61), fovy=37),
                LookAt(position=(2.0, 0.07, 1.1), target=(1.34, 0.75, 0.61), fovy=37),
                LookAt(position=(2.3, 0.75, 1.1), target=(1.34, 0.75, 0.61), fovy=37),
                GRIPPER,
            ),
            strict=True,
        )
    )
    agent_pos_names: ClassVar[tuple[str, ...]] = AGENT_POS
    horizon: int = HORIZON
    phrasings: ClassVar[tuple[str, ...]] = ("train", "held_out")
    backdrop_groups: ClassVar[tuple[int, ...]] = (BACKDROP,)
    things: tuple[Thing, ...] = (MARKER,)

    def __init__(self, name: str, **settings: Any) -> None:
        self.name = name
        self._fetch = Fetch(name)
        model: Any = self._fetch.get_wrapper_attr("model")
        _mount_camera(model)
        for geom in range(model.ngeom):
            body = model.body(model.geom_bodyid[geom]).name
            if body == HANDLE:
                model.geom_group[geom] = HIDDEN
            elif body.removeprefix("robot0:") in BEHIND:
                model.geom_group[geom] = BACKDROP
        super().__init__(self._fetch, **settings)

    def begin(self, phrasing: Any, options: Mapping[str, Any]) -> tuple[str, int]:
        self._succeeded = False
        return say(self.name, phrasing, self.rng), 0

    def note(self) -> None:
        self._succeeded = self._succeeded or self._fetch.success

    def success(self) -> bool:
        return self._succeeded

    def agent_pos(self) -> np.ndarray:
        return np.array([*self._fetch.hand, self._fetch.opening])

    def knowledge(self) -> Mapping[str, Any]:
        fetch, block = self._fetch, self._fetch.block
        known = {"hand": fetch.hand, "opening": fetch.opening, "aim": fetch.goal, "goal": self.things.index(MARKER)}
        return known if block is None else {**known, "block": block}

    def foresee(self, expert: Callable[[Any, dict[str, Any]], np.ndarray], steps: int) -> np.ndarray:
        """What the expert would do in the next S steps if nobody disturbed it, (S, 4) in [-1, 1]. The episode then goes
        on as if nobody had asked.
        """

        def step(action: np.ndarray) -> None:
            self._fetch.step(action)
            self._settle()  # the next action moves the hand from where it then seems to be

        return foresee(self, expert, steps, aside=self._fetch.aside(), knowledge=self.knowledge, step=step)

    @property
    def target_name(self) -> str:
        return name_of(self.name)


class BlockTask(FetchTask):
    """Bring the block to the marker. In its scene the arm can also be told to reach the marker itself.

    That was done if the hand was at the marker at any time or, where it is there from the start, if it still is; and in
    no case if the block was brought there.
    """

    things: tuple[Thing, ...] = (BLOCK, MARKER)

    def begin(self, phrasing: Any, options: Mapping[str, Any]) -> tuple[str, int]:
        self._from_the_start = self._reached = self._at_the_marker()
        return super().begin(phrasing, options)

    def note(self) -> None:
        super().note()
        self._reached = self._at_the_marker() or (self._reached and not self._from_the_start)

    def counterfactual(self, phrasing: Any, rng: np.random.Generator) -> tuple[str, int]:
        """Words of `reach`, and the thing that they mean."""
        return say("reach", phrasing, rng), self.things.index(MARKER)

    def judge(self, index: int) -> bool:
        """Whether the episode so far succeeds if thing `index` was meant."""
        if self.things[index] == MARKER:
            return self._reached and not self._succeeded
        return self._succeeded

    def _at_the_marker(self) -> bool:
        threshold: float = self._fetch.get_wrapper_attr("distance_threshold")
        return bool(np.linalg.norm(self._fetch.hand - self._fetch.goal) < threshold)


def make(name: str, **settings: Any) -> FetchTask:
    """The environment of a task, by its name.

    Raises:
        ImportError: Gymnasium-Robotics is not installed.
    """
    return (FetchTask if name == "reach" else BlockTask)(name, **settings)


def _mount_camera(model: Any) -> None:
    """Put the hand's camera 10 cm in front of the gripper, so that it sees the fingertips and what is between them.

    The model has it below them, where it sees the table's white, or in it.
    """
    camera, hand = model.camera(GRIPPER), model.body("robot0:gripper_link")
    position, target = np.array([-0.03, 0, 0.11]), np.array([0.05, 0, 0.01])  # x points down, z away from the robot
    backwards = (position - target) / np.linalg.norm(position - target)
    across = np.array([0.0, -1.0, 0.0])
    axes = np.stack([across, np.cross(backwards, across), backwards], axis=1)
    camera.bodyid[:], camera.pos[:] = hand.id, position
    mujoco.mju_mat2Quat(camera.quat, axes.ravel())
