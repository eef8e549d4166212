"""The Gymnasium environment that every task shares: scene, arm, cameras, observation, privileged labels, success.

A task subclasses `TabletopEnv` and says what stands where (`sample_layout`), what is said (`instruction_for`) and when
it is done (`judge`). Success is judged for every object at once, so that a policy which was told another instruction
can be asked whether it followed that one.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Literal

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from configs.collect import SIZES
from envs.gl import choose_gl_backend
from envs.segments import MIN_VISIBLE_PIXELS
from envs.tabletop.arm import ACTION_NAMES, AGENT_POS_HIGH, AGENT_POS_LOW, RAMP, WORKSPACE, Arm
from envs.tabletop.episode import EpisodeMetrics, Layout
from envs.tabletop.instructions import PHRASINGS, Phrasing, Referent
from envs.tabletop.objects import COMBINATIONS, SLOTS, Combinations
from envs.tabletop.pictures import Pictures
from envs.tabletop.props import light_lamp, show_props
from envs.tabletop.randomisation import SceneLook
from envs.tabletop.scene import CAMERAS, CONTROL_HZ, load_scene, show_objects
from envs.tabletop.slots import Slots
from envs.text import INSTRUCTION_CHARACTERS, MAX_INSTRUCTION, InstructionSpace

DEFAULT_SIZE = 64
NEAR = 0.10  # metres from the target; a failure that never got there is called so
Labels = Literal["boxes", "none"]


class TabletopEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """A table, an arm, up to four objects, one instruction.

    Observation: `pixels` (camera → (size, size, 3) uint8), `agent_pos` (12,) float32 and `instruction`. Action: one
    value in [-1, 1] for each name in `action_names`, as shares of `MAX_SPEED` in `arm.py`. `reset(options=…)` takes
    `phrasing` ("train", "held_out"), `combinations` ("train", "held_out", "all") and `referent` (force what is named).

    Args:
        cameras: which cameras are in the observation. With none at all, (), nothing is drawn: for whoever looks at
            states alone.
        size: side of the pictures in pixels.
        labels: "boxes" adds the visible boxes of all objects in every camera to `info["privileged"]`.
        randomise: vary light, table colour and camera pose from episode to episode.
        render_mode: None or "rgb_array"; `render()` then gives a (256, 256, 3) picture of the front camera.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # type: ignore[misc]

    task: ClassVar[str]
    action_names: ClassVar[tuple[str, ...]]
    horizon: int  # control steps

    def __init__(
        self,
        *,
        cameras: tuple[str, ...] = CAMERAS,
        size: int = DEFAULT_SIZE,
        labels: Labels = "boxes",
        randomise: bool = False,
        render_mode: str | None = None,
    ) -> None:
        unknown = [name for name in cameras if name not in CAMERAS]
        if unknown or len(set(cameras)) != len(cameras):
            raise ValueError(f"cameras {list(cameras)} must be some of {', '.join(CAMERAS)}, each once")
        if not SIZES[0] <= size <= SIZES[1]:
            raise ValueError(f"size {size} must lie between {SIZES[0]} and {SIZES[1]} pixels")
        if labels not in ("boxes", "none"):
            raise ValueError(f"labels {labels!r} must be 'boxes' or 'none'")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode {render_mode!r} must be None or 'rgb_array'")
        self.cameras, self.size, self.labels = tuple(cameras), size, labels
        self.randomise, self.render_mode = randomise, render_mode
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Dict({name: spaces.Box(0, 255, (size, size, 3), np.uint8) for name in self.cameras}),
                "agent_pos": spaces.Box(AGENT_POS_LOW, AGENT_POS_HIGH, dtype=np.float32),
                "instruction": InstructionSpace(MAX_INSTRUCTION, charset=INSTRUCTION_CHARACTERS),
            }
        )
        self.action_space = spaces.Box(-1.0, 1.0, (len(self.action_names),), np.float32)
        self._command_index = np.array([ACTION_NAMES.index(name) for name in self.action_names])
        self._model = load_scene()
        self._data = mujoco.MjData(self._model)
        self._arm = Arm(self._model, self._data)
        self._look = SceneLook(self._model)
        self._pictures = Pictures(self._model, size)
        self._layout: Layout | None = None
        self._over = True  # nothing to step: before the first reset, and after an episode's end
        self.instruction = ""
        self.metrics = EpisodeMetrics(self.horizon, 0)

    # What a task defines.

    def sample_layout(self, combinations: Combinations, referent: Referent | None) -> Layout:
        """Draw this episode's objects, paths and target with `self.np_random`."""
        raise NotImplementedError

    def judge(self, index: int) -> bool:
        """Whether the episode so far succeeds if object `index` was meant."""
        raise NotImplementedError

    def fault(self, index: int) -> str:
        """What went wrong if object `index` was meant, in a few words, where the task knows better than a distance."""
        return ""

    def judged_steps(self, index: int) -> slice:
        """Of `metrics`, the steps so far in which the gripper ought to be at object `index`: the last 60 %."""
        return slice(self._step * 2 // 5 + 1, self._step + 1)

    def is_over(self) -> bool:
        """Whether the outcome is already settled before the horizon."""
        return False

    def start_position(self) -> np.ndarray:
        """Where the gripper starts: anywhere in the workspace, metres (3,)."""
        raise NotImplementedError

    def instruction_for(self, index: int, phrasing: Phrasing, rng: np.random.Generator) -> str:
        """Words that single out object `index`."""
        raise NotImplementedError

    # Gymnasium.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        options = options or {}
        unknown = set(options) - {"phrasing", "combinations", "referent"}
        if unknown:
            raise ValueError(f"reset options {sorted(unknown)} are unknown; use phrasing, combinations, referent")
        phrasing: Phrasing = options.get("phrasing", "train")
        combinations: Combinations = options.get("combinations", "train")
        if combinations not in COMBINATIONS:
            raise ValueError(f"combinations {combinations!r} must be one of {', '.join(COMBINATIONS)}")
        layout = self.sample_layout(combinations, options.get("referent"))
        self._layout = layout
        self.instruction = self.instruction_for(layout.target, phrasing, self.np_random)
        self._step = 0
        self._stable, self._over = True, False
        self.metrics = EpisodeMetrics(self.horizon, len(layout.objects))
        mujoco.mj_resetData(self._model, self._data)
        self._look.apply(self.np_random if self.randomise else None)
        show_objects(self._model, layout.objects)
        show_props(self._model, screen=layout.screen, lamp=layout.lamp is not None)
        self._pictures.forget_episode()
        self._slots = Slots(layout)
        for slot, shown in enumerate(layout.objects):
            self._data.mocap_quat[slot] = (np.cos(shown.yaw / 2), 0.0, 0.0, np.sin(shown.yaw / 2))
        self._data.mocap_pos[:] = self._slots.at(0)
        self._arm.reset(self.start_position(), opening=0.02)
        self._note()
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        if self._over:
            raise ValueError("step() was called before reset(), or after the episode's end; call reset() first")
        values = np.asarray(action, dtype=np.float64)
        if values.shape != self.action_space.shape or not np.isfinite(values).all():
            raise ValueError(
                f"action {action!r} must be {self.action_space.shape} finite numbers: {', '.join(self.action_names)}"
            )
        command = np.zeros(len(ACTION_NAMES))
        command[self._command_index] = values
        first = self._step * RAMP + 1
        self._arm.step(command, [self._slots.at(first + part) for part in range(RAMP)])
        self._step += 1
        if self._step == self.layout.lamp:
            light_lamp(self._model, green=True)
        if not self._is_stable():
            self._stable = False
            mujoco.mj_resetData(self._model, self._data)  # finite again: the last observation stays in its space
            mujoco.mj_forward(self._model, self._data)
        self._note()
        terminated = not self._stable or self.is_over()
        truncated = not terminated and self._step >= self.horizon
        self._over = terminated or truncated
        observation, info = self._observation(), self._info()
        return observation, float(info["is_success"]), terminated, truncated, info

    def render(self) -> np.ndarray:
        """The front camera's picture, (256, 256, 3) uint8.

        Raises:
            ValueError: the environment was made without render_mode="rgb_array", or has no episode yet.
        """
        if self.render_mode != "rgb_array":
            raise ValueError('render() needs the environment made with render_mode="rgb_array"')
        if self._layout is None:
            raise ValueError("render() was called before reset(); call reset() first")
        return self._pictures.rendered().draw(self._data, "front")

    def close(self) -> None:
        self._pictures.close()

    # Copies, pickled ones too, are independent: the same episode at the same moment, with a simulation of their own.

    def __copy__(self) -> TabletopEnv:
        return copy.deepcopy(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        choose_gl_backend()  # it may be another process
        self.__dict__.update(state)
        copied, self._data = self._data, mujoco.MjData(self._model)  # a copied MjData has yet another model of its own
        mujoco.mj_copyData(self._data, self._model, copied)
        self._arm = Arm(self._model, self._data, self._arm.reference)

    # What evaluation and experts read.

    @property
    def model(self) -> mujoco.MjModel:
        """The simulation's model, under the name that Gymnasium's MuJoCo environments use. An episode rewrites it."""
        return self._model

    @property
    def data(self) -> mujoco.MjData:
        """The simulation's state, under the name that Gymnasium's MuJoCo environments use."""
        return self._data

    @property
    def layout(self) -> Layout:
        if self._layout is None:
            raise ValueError("the environment has no episode yet; call reset() first")
        return self._layout

    @property
    def task_description(self) -> str:
        """The instruction, under the name that LeRobot's tools look for."""
        return self.instruction

    @property
    def target_name(self) -> str:
        """The target for people, for example "red ball", "red ball (clockwise)" or "red ball (lamp)"."""
        words = self.layout.referents[self.layout.target]
        name = self.layout.objects[self.layout.target].name
        special = None if words is None else words.motion or words.event
        return f"{name} ({special})" if special else name

    @property
    def success(self) -> bool:
        target = self.layout.target
        return self._stable and self.judge(target)

    @property
    def step_count(self) -> int:
        return self._step

    @property
    def reset_options(self) -> dict[str, tuple[str, ...]]:
        """What `reset(options=…)` can be asked for, and the values of each."""
        return {"phrasing": PHRASINGS, "combinations": COMBINATIONS}

    @property
    def events(self) -> np.ndarray:
        """First and one-past-last control step in which the event of each object's words holds, (n, 2) int64."""
        events = self.layout.events
        return np.tile((0, self.horizon), (len(self.layout.objects), 1)) if events is None else events.copy()

    @property
    def gl_renderer(self) -> str:
        """Name of the OpenGL renderer that draws the pictures."""
        return self._pictures.observed().gl_name()

    def tracking_errors(self) -> np.ndarray:
        """Horizontal distance between gripper and target after each step, (steps,) metres."""
        errors: np.ndarray = self.metrics.errors[1 : self.step_count + 1, self.layout.target]
        return errors

    def judged_errors(self) -> np.ndarray:
        """The same distance in the steps in which the gripper ought to be at the target, (k,) metres."""
        target = self.layout.target
        errors: np.ndarray = self.metrics.errors[self.judged_steps(target), target]
        return errors

    def diagnosis(self) -> str:
        """Why the episode failed, in a few words."""
        if any(self.judge(i) for i in range(len(self.layout.objects))):
            return "wrong target"
        if fault := self.fault(self.layout.target):
            return fault
        close = self.judged_errors() < NEAR
        if not close.any():
            return "never near the target"
        return "too imprecise" if close.mean() > 0.8 else "lost the target"

    def picture(self, camera: str, size: int) -> np.ndarray:
        """What a camera sees now, (size, size, 3) uint8."""
        return self._pictures.large(size).draw(self._data, camera)

    def in_picture(self, camera: str, point: np.ndarray) -> tuple[float, float] | None:
        """Where a point (3,) in metres lies in a camera's picture, (x, y) in [0, 1]; None behind the camera."""
        return self._pictures.observed().in_picture(self._data, camera, point)

    def privileged(self) -> dict[str, Any]:
        """What only experts, labels and judges may see; the same as `info["privileged"]` of the last step."""
        privileged: dict[str, Any] = self._info()["privileged"]
        return privileged

    def counterfactual(self, phrasing: Phrasing, rng: np.random.Generator) -> tuple[str, int]:
        """An instruction that is valid in this very scene but means another object, and that object's index."""
        others = [i for i, words in enumerate(self.layout.referents) if words is not None and i != self.layout.target]
        index = int(others[rng.integers(len(others))])
        return self.instruction_for(index, phrasing, rng), index

    def instructions(self, rng: np.random.Generator) -> tuple[str | None, ...]:
        """One text for each of SLOTS objects: the episode's own for the target, None where no words single one out."""
        texts: list[str | None] = [None] * SLOTS
        for index, words in enumerate(self.layout.referents):
            if words is not None:
                texts[index] = self.instruction_for(index, "train", rng)
        texts[self.layout.target] = self.instruction
        return tuple(texts)

    # What people change while they watch.

    def named(self, options: dict[str, Any]) -> int | None:
        """Which object of this scene reset options mean, None if none."""
        referents = self.layout.referents
        return referents.index(options["referent"]) if options.get("referent") in referents else None

    def movable(self) -> dict[int, np.ndarray]:
        """Where the objects are that can be put elsewhere, (3,) metres by their index: all of them."""
        return {i: self._data.mocap_pos[i].copy() for i in range(len(self.layout.objects))}

    def move_thing(self, index: int, place: np.ndarray) -> None:
        """Put an object elsewhere, as near to a point (3,) in metres as the hand can go; from there it moves on."""
        self._data.mocap_pos[index, :2] = self._slots.move(index, place, self._step * RAMP)
        mujoco.mj_kinematics(self._model, self._data)

    # Inside.

    def _is_stable(self) -> bool:
        # How often each kind of warning was raised since the last reset.
        return not self._data.warning.number.any() and bool(np.isfinite(self._data.qpos).all())

    def _note(self) -> None:
        hand = self._arm.position
        places = self._data.mocap_pos[: len(self.layout.objects)]
        errors = np.hypot(places[:, 0] - hand[0], places[:, 1] - hand[1])
        self.metrics.note(errors, hand[2] - places[:, 2] - self._slots.half_heights[: len(places)], hand)

    def _observation(self) -> dict[str, Any]:
        pixels = {}
        self._boxes = {}
        for name in self.cameras:
            renderer = self._pictures.observed()
            if self.labels == "boxes":
                pixels[name], *self._boxes[name] = renderer.draw_with_boxes(self._data, name)
            else:
                pixels[name] = renderer.draw(self._data, name)
        return {"pixels": pixels, "agent_pos": self._arm.agent_pos(), "instruction": self.instruction}

    def _info(self) -> dict[str, Any]:
        """Per-object arrays have a row for each of SLOTS objects; rows that are not `present` are zeros."""
        layout, slots = self.layout, self._slots
        tick = self._step * RAMP
        success, events = self.success, np.zeros((SLOTS, 2), np.int64)
        events[: len(layout.objects)] = self.events
        velocities = (slots.at(tick + RAMP) - slots.at(tick))[:, :2] * CONTROL_HZ
        return {
            "is_success": success,
            "stable": self._stable,
            "privileged": {
                "objects": slots.names,
                "present": slots.present.copy(),
                "positions": self._data.mocap_pos * slots.present[:, None],
                "half_heights": slots.half_heights.copy(),
                "velocities": velocities * slots.present[:, None],
                "target": layout.target,
                "kinds": slots.kinds,
                "events": events,
                "active": (events[:, 0] <= self._step) & (self._step < events[:, 1]),
                "hand": self._arm.position,
                "error": float(self.metrics.errors[self._step, layout.target]),
                "boxes": {name: boxes for name, (boxes, _) in self._boxes.items()},
                "visible": {name: n >= MIN_VISIBLE_PIXELS for name, (_, n) in self._boxes.items()},
                "success": success,
            },
        }


def random_start(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """A start for the gripper anywhere over the table, between two heights in metres."""
    x, y = rng.uniform(WORKSPACE[0, :2], WORKSPACE[1, :2])
    return np.array([x, y, rng.uniform(low, high)])
