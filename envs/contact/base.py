"""What the tasks with contact share: pictures, labels and words around one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from envs.cameras import CameraSpec, LookAt
from envs.contact.scene import Part
from envs.contact.table import ContactTable
from envs.foresight import foresee
from envs.mujoco_task import MujocoTask
from envs.segments import Thing
from envs.tabletop.arm import AGENT_POS_HIGH, AGENT_POS_LOW, AGENT_POS_NAMES
from envs.tabletop.objects import COLOUR_JITTER, COLOURS
from envs.tabletop.scene import BACKDROP_GROUP

FALLEN = -0.02  # height of a body's middle below which it has left the table, metres
RESTING = 0.01  # m/s: slower is at rest
MOVED = 0.02  # metres by which a body must have moved to count as moved
TRIES = 200  # places, before all are drawn anew


class ContactTask(MujocoTask):
    """Things 0 to N - 1 of the labels are the bodies, and those after them the fixtures.

    `colours` are those of this episode's bodies and fixtures, None for one that is not there. `aims` (N + M, 2) is
    which body the words for each thing mean, and which thing it is to go to, -1 for none: for a thing that no words
    mean, and where nothing is said of a goal.
    """

    aims: np.ndarray

    # The last two stand in front of the table, to the arm's left and right: what it hides from one, the other mostly
    # sees, and together they tell how far away things are.
    views: ClassVar[Mapping[str, CameraSpec]] = {
        "front": "front",
        "wrist": "wrist",
        "left": LookAt(position=(0.62, 0.72, 1.12), target=(0.0, 0.0, 0.04), fovy=22),
        "right": LookAt(position=(0.62, -0.72, 1.12), target=(0.0, 0.0, 0.04), fovy=22),
    }
    backdrop_groups: ClassVar[tuple[int, ...]] = (BACKDROP_GROUP,)
    agent_pos_names: ClassVar[tuple[str, ...]] = AGENT_POS_NAMES
    agent_pos_bounds: ClassVar[tuple[Any, Any]] = (AGENT_POS_LOW, AGENT_POS_HIGH)
    phrasings: ClassVar[tuple[str, ...]] = ("train", "held_out")

    # What a task says.
    actions: ClassVar[tuple[str, ...]]
    floor: ClassVar[float]  # lowest height of the pinch point, metres
    bodies: ClassVar[Sequence[Part]]
    fixtures: ClassVar[Sequence[Part]]
    turntables: ClassVar[Sequence[tuple[float, float]]] = ()  # (x, y) in metres

    def __init__(self, **settings: Any) -> None:
        self.things = tuple(Thing(bodies=(part.name,)) for part in (*self.bodies, *self.fixtures))
        self.colours: tuple[str | None, ...] = (None,) * len(self.things)
        table = ContactTable(self.actions, self.floor, self.bodies, self.fixtures, self.turntables)
        super().__init__(table, **settings)

    @property
    def table(self) -> ContactTable:
        table = self.env.unwrapped
        assert isinstance(table, ContactTable)
        return table

    def arrange(self, colours: Sequence[str | None], places: np.ndarray, yaws: np.ndarray, *, on: float = 0.0) -> None:
        """Put everything that has a colour at its place (N + M, 2) in metres, the bodies turned by (N,) radians, at the
        height of what they lie `on`, metres.
        """
        self.colours, props, count = tuple(colours), self.table.props, len(self.bodies)
        jitter = self.rng.uniform(-COLOUR_JITTER, COLOUR_JITTER, (len(self.things), 3))
        for i, colour in enumerate(self.colours):
            place = None if colour is None else places[i]
            look = np.clip(np.array(COLOURS[colour or "red"]) + jitter[i], 0, 1)
            if i < count:
                props.put_body(i, place, float(yaws[i]), look, on=on)
            else:
                props.put_fixture(i - count, place, look)

    def note(self) -> None:
        """What became of the bodies; a task's own counters come after it."""
        props = self.table.props
        if self.step_count == 0:
            self.start, self.touched = props.bodies, np.zeros(len(self.bodies), np.bool_)
        self.touched |= props.touching().any(axis=1)

    def is_over(self) -> bool:
        return self.success() or bool(self.table.props.bodies[self.target, 2] < FALLEN)

    def agent_pos(self) -> np.ndarray:
        return self.table.arm.agent_pos()

    def present(self) -> np.ndarray:
        return np.array([colour is not None for colour in self.colours])

    def knowledge(self) -> Mapping[str, Any]:
        """`hand` (3,), the pinch point; `bodies` (N, 3) and `fixtures` (M, 3), their middles; all in metres. `aims`."""
        props, arm = self.table.props, self.table.arm
        known = {"hand": arm.position, "bodies": props.bodies, "fixtures": props.fixtures, "aims": self.aims}
        goal = int(self.aims[self.target, 1])
        return known if goal < 0 else {**known, "goal": goal}

    def instructions(self, rng: np.random.Generator) -> tuple[str | None, ...]:
        """Words for each thing, None for one that none mean; those of the episode for what is meant."""
        words = [self.words(i, "train", rng) if aim >= 0 else None for i, aim in enumerate(self.aims[:, 0])]
        words[self.target] = self.instruction
        return tuple(words)

    def words(self, index: int, phrasing: Any, rng: np.random.Generator) -> str:
        """Words that mean thing `index` of this scene."""
        raise NotImplementedError

    def meaning(self, index: int) -> dict[str, str]:
        """What the task's reader makes of these words: reset options."""
        raise NotImplementedError

    def named(self, options: Mapping[str, Any]) -> int | None:
        """Which thing of this scene reset options mean, None if none."""
        return next((i for i, aim in enumerate(self.aims[:, 0]) if aim >= 0 and self.meaning(i) == options), None)

    def foresee(
        self,
        expert: Callable[[Any, dict[str, Any]], np.ndarray],
        steps: int,
        thing: int | None = None,
    ) -> np.ndarray:
        """What the expert would do in the next S steps if nobody disturbed it, (S, A) in [-1, 1], where the words for a
        thing were said; for what is meant if left out. The episode then goes on as if nobody had asked.
        """
        target = self.target if thing is None else thing

        def step(action: np.ndarray) -> None:
            self.table.step(action)
            self._settle()

        def knowledge() -> dict[str, Any]:
            return {**self.knowledge(), "target": target}

        return foresee(self, expert, steps, aside=self.table.aside(), knowledge=knowledge, step=step)

    def expert_state(self) -> np.ndarray:
        """Proprioception; from the hand to what is meant, from there to its goal where it has one, and to the other
        bodies, as far as they are there, in tenths of a metre; how fast it moves; and how it is turned.
        """
        props, arm = self.table.props, self.table.arm
        bodies, mine = props.bodies, self.target if self.target < len(self.bodies) else 0
        goal = self.knowledge().get("goal")
        aim = bodies[mine] if goal is None else np.concatenate([bodies, props.fixtures])[goal]
        others = np.delete((bodies - arm.position) * self.present()[: len(bodies), None], mine, axis=0)
        yaw = props.yaws[mine] * 4  # cubes look alike after a quarter of a turn
        far = np.concatenate([bodies[mine] - arm.position, aim - bodies[mine], props.velocities[mine], *others])
        return np.concatenate([arm.agent_pos(), 10 * far, [np.sin(yaw), np.cos(yaw)]]).astype(np.float32)

    def reward(self, inner: float, success: bool) -> float:
        return sum(self.reward_terms().values())

    def reward_terms(self) -> dict[str, float]:
        """The parts of a step's reward; see `envs.rewards`."""
        raise NotImplementedError

    def moved(self) -> np.ndarray:
        """How far each body is from where it was, (N,) metres."""
        return np.linalg.norm(self.table.props.bodies - self.start, axis=1)


def nearest(spot: np.ndarray, others: Sequence[np.ndarray]) -> float:
    """Distance of a point (2,) to the nearest of others, metres."""
    return min((float(np.hypot(*(spot - other))) for other in others), default=np.inf)


def from_line(point: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Distance of a point from the line between two others, all (2,)."""
    along = np.clip((point - a) @ (b - a) / max(float((b - a) @ (b - a)), 1e-9), 0, 1)
    return float(np.linalg.norm(point - a - along * (b - a)))


def limited(action: np.ndarray) -> np.ndarray:
    """Scale an action (A,) so that no component exceeds 1, keeping its direction."""
    scaled: np.ndarray = (action / max(1.0, float(np.abs(action).max()))).astype(np.float32)
    return scaled


def aim_of(known: Mapping[str, Any]) -> tuple[int, int]:
    """Which body an expert is to act on, and to which thing it is to go, -1 where nothing is said of it."""
    body, goal = known["aims"][known["target"]]
    return int(body), int(goal)
