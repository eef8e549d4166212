"""Meta-World's tasks as this project's: pictures, words, labels and outcomes around Meta-World's own simulation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from envs.cameras import CameraSpec, LookAt, Middle
from envs.foresight import foresee
from envs.metaworld.instructions import name_of, say
from envs.metaworld.sawyer import PROPRIOCEPTION, Sawyer
from envs.metaworld.sisters import DONE, SISTERS, Scene
from envs.metaworld.specs import AGENT_POS, CAMERAS, HORIZON
from envs.metaworld.things import THINGS
from envs.mujoco_task import MujocoTask
from envs.rendering import SHOWN_GROUPS

# Parts of the robot that nothing on the table is behind, seen from these cameras: two fifths of what there is to draw.
BEHIND = ("controller_box", "pedestal_feet", "torso", "pedestal", "right_arm_base_link", "right_l0", "head", "screen")
BACKDROP = 2  # a group of geoms that Meta-World does not use
OPPOSITE = LookAt(position=(-0.75, 0.075, 0.7), target=(0.1, 0.75, 0.1), fovy=42)
LONGEST = 500  # control steps: Meta-World's own limit
STAY = 60  # control steps for which what is done already is left alone, 0.75 s
OBJECT, GOAL, SISTER = range(3)  # things that labels are about; the last one only where there is a sister


class MetaWorldTask(MujocoTask):
    """One of the fifty tasks. Success: Meta-World says so after any step, which ends the episode.

    The policy sees pictures and the first four numbers of Meta-World's state: where the hand is, and how far the
    gripper is open. `info["privileged"]["state"]` is the whole state (39,) float64 with the goal, for experts; `script`
    names the scripted policy that shows what is to be done, `reads` is the state that it has to be given, and `held`
    says whether both fingers touch one thing that can move; `info["success"]` and the other measures are Meta-World's
    own, of the newest step.

    Args:
        name: of the task, for example "pick-place".
        stock: draw shadows, reflections and smooth edges as Meta-World's own pictures have them, which takes many times
            as long.
        horizon: control steps after which time is up, 500 at most: then Meta-World itself stops. For more than 400,
            `gymnasium.make` needs the same number as `max_episode_steps`, too.
        settings: cameras, size, labels and render_mode of `MujocoTask`.
    """

    # The first one is where published policies look from. Meta-World's own "corner2" stands elsewhere. "opposite" is
    # our own: it stands where "corner2" would in a mirror, so that the two together tell how far away things are.
    views: ClassVar[Mapping[str, CameraSpec]] = dict(
        zip(
            CAMERAS,
            ("corner4", Middle(camera="corner4", share=2 / 3), OPPOSITE, "gripperPOV", "topview", "corner3"),
            strict=True,
        )
    )
    upside_down: ClassVar[tuple[str, ...]] = ("corner2", "corner2_middle", "corner3")
    agent_pos_names: ClassVar[tuple[str, ...]] = AGENT_POS
    agent_pos_bounds: ClassVar[tuple[Any, Any]] = ((-0.525, 0.348, -0.0525, 0), (0.525, 1.025, 0.7, 1))  # Meta-World's
    phrasings: ClassVar[tuple[str, ...]] = ("train", "held_out")

    backdrop_groups: ClassVar[tuple[int, ...]] = (BACKDROP,)

    def __init__(self, name: str, *, stock: bool = False, horizon: int = HORIZON, **settings: Any) -> None:
        given: Any = horizon
        if not isinstance(given, int) or not 1 <= horizon <= LONGEST:
            raise ValueError(f"horizon {horizon!r} must be a whole number from 1 to {LONGEST}, of control steps")
        self.name, self.stock, self.horizon, self.things = name, stock, horizon, THINGS[name]
        self._sawyer = Sawyer(name)
        model = self._sawyer.unwrapped.model  # type: ignore[attr-defined]
        for geom in range(model.ngeom):
            shown = model.geom_group[geom] in SHOWN_GROUPS
            if shown and model.body(model.geom_bodyid[geom]).name in BEHIND:
                model.geom_group[geom] = BACKDROP
        super().__init__(self._sawyer, **settings)

    def begin(self, phrasing: Any, options: Mapping[str, Any]) -> tuple[str, int]:
        self._succeeded = False
        return say(self.name, phrasing, self.rng), OBJECT

    def note(self) -> None:
        self._succeeded = self._succeeded or self._sawyer.success

    def success(self) -> bool:
        return self._succeeded

    def agent_pos(self) -> np.ndarray:
        return self._sawyer.state[:PROPRIOCEPTION]

    def knowledge(self) -> Mapping[str, Any]:
        state = self._sawyer.state
        known = {"state": state, "hand": state[:3], "goal": GOAL, "script": self.name, "reads": state}
        return {**known, "held": self._sawyer.holds}

    def foresee(self, expert: Callable[[Any, dict[str, Any]], np.ndarray], steps: int) -> np.ndarray:
        """What the expert would do in the next S steps if nobody disturbed it, (S, 4) in [-1, 1]. The episode then goes
        on as if nobody had asked.
        """
        sawyer = self._sawyer
        return foresee(self, expert, steps, aside=sawyer.aside(), knowledge=self.knowledge, step=sawyer.step)

    @property
    def target_name(self) -> str:
        return name_of(self.name)


class SharedScene(MetaWorldTask):
    """A task whose scene is that of another one as well: it can be told to do the other one, its sister. After
    `reset(options={"told": "other"})` that is the task: its words, its success, and an expert that does it or, where it
    is done from the start, stays where it is.

    Thing 2 of the labels is what the sister's words mean. It was done if it came about at any time or, where it is so
    from the start, if it is still so; and in no case if the scene's own task was done instead.
    """

    own_options: ClassVar[Mapping[str, tuple[str, ...]]] = {"told": ("own", "other")}

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__(name, **settings)
        self.sister = SISTERS[name]
        self.things = (*self.things, THINGS[self.sister][OBJECT])
        self._other = False

    def begin(self, phrasing: Any, options: Mapping[str, Any]) -> tuple[str, int]:
        self._done = DONE[self.sister](Scene(self.data))
        self._from_the_start = self._came_about = self._done()
        self._start = self._sawyer.state[:3].copy()
        self._other = options.get("told", "own") == "other"
        own = super().begin(phrasing, options)
        return (say(self.sister, phrasing, self.rng), SISTER) if self._other else own

    def success(self) -> bool:
        return self.judge(SISTER if self._other else OBJECT)

    def is_over(self) -> bool:
        if self._other and self._from_the_start:
            return self._succeeded or self.step_count >= STAY
        return super().is_over()

    def knowledge(self) -> Mapping[str, Any]:
        known = super().knowledge()
        if not self._other:
            return known
        reads = known["state"].copy()
        if self.sister == "coffee-button":  # its policy looks for the button where the mug is here
            reads[4:7] = self.data.site("buttonStart").xpos
        script = "" if self._from_the_start else self.sister
        return {**known, "goal": SISTER, "script": script, "reads": reads, "start": self._start}

    @property
    def target_name(self) -> str:
        return name_of(self.sister if self._other else self.name)

    def note(self) -> None:
        super().note()
        self._came_about = self._done() or (self._came_about and not self._from_the_start)

    def counterfactual(self, phrasing: Any, rng: np.random.Generator) -> tuple[str, int]:
        """Words of the sister, and the thing that they mean."""
        return say(self.sister, phrasing, rng), SISTER

    def judge(self, index: int) -> bool:
        """Whether the episode so far succeeds if thing `index` was meant."""
        if index == SISTER:
            return self._came_about and not self._succeeded
        return self._succeeded


def make(name: str, **settings: Any) -> MetaWorldTask:
    """The environment of a task, by its name.

    Raises:
        ImportError: Meta-World is not installed.
    """
    return (SharedScene if name in SISTERS else MetaWorldTask)(name, **settings)
