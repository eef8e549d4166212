"""Other people's MuJoCo environments as tasks: pictures, words, proprioception, success and labels around them.

A subclass says what the task is; see docs/examples/colour_reacher.py. `envs.task` says what a task must offer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from configs.collect import SIZES
from configs.names import unknown
from envs.cameras import CameraSpec, find
from envs.gl import choose_gl_backend
from envs.on_demand import BOXES, PICTURE, VISIBLE, Drawn, Moment
from envs.rendering import Renderer
from envs.segments import MIN_VISIBLE_PIXELS, Thing
from envs.text import INSTRUCTION_CHARACTERS, MAX_INSTRUCTION, InstructionSpace

RENDER_SIZE = 256
BAD_STATES = [int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{name}")) for name in ("QPOS", "QVEL", "QACC")]


class MujocoTask(gymnasium.Wrapper[dict[str, Any], np.ndarray, Any, np.ndarray]):
    """An environment with MuJoCo's `model` and `data` as a task with an instruction.

    Observation: `pixels` (camera → (size, size, 3) uint8), `agent_pos` (P,) float32 and `instruction`. Action: that of
    the environment, which must be a `Box`; what lies outside is cut. Reward: 1 in steps that are a success, else 0,
    unless a subclass overrides `reward`. What the environment puts in `info` stays there, beside `is_success`, `stable`
    and `privileged`: by camera `boxes` (O, 4) and `visible` (O,), `present` (O,), `target`, and `events` (O, 2), the
    control steps in which what the words ask for can be done.

    `reset(options=…)` takes `phrasing`, what `own_options` lists, and the names in `passed_options`, which the
    environment gets.

    Args:
        env: the environment. Its own time limit, if any, stays; make it without if the task has another horizon.
        cameras: which of `views` are in the observation; None for all. With none at all, (), nothing is drawn: for
            whoever looks at states alone.
        size: side of the pictures in pixels.
        labels: "boxes" adds boxes and visibility to `info["privileged"]`.
        on_demand: draw a picture, and find its boxes, only when it is looked at, which must be before the next step.
            `pixels`, `boxes` and `visible` are then mappings, but no dicts.
        render_mode: None or "rgb_array"; `render()` then gives a (256, 256, 3) picture of the first camera.

    Raises:
        ValueError: the environment has no MuJoCo model or no Box of actions, or the settings cannot be.
    """

    # What a subclass says.
    views: ClassVar[Mapping[str, CameraSpec]]  # the cameras it offers, by the names they have in observations
    upside_down: ClassVar[tuple[str, ...]] = ()  # those of them that are to be turned by 180 degrees
    stock: bool = False  # draw the model's own shadows, reflections and multisampling: ten times as slow
    things: tuple[Thing, ...] = ()  # O things that labels are about; the same as long as the environment lives
    backdrop_groups: ClassVar[tuple[int, ...]] = ()  # groups of geoms that are never in front of them
    agent_pos_names: ClassVar[tuple[str, ...]]
    agent_pos_bounds: ClassVar[tuple[Any, Any]] = (-np.inf, np.inf)  # low and high, numbers or (P,); values are cut
    horizon: int  # control steps, as in `max_episode_steps`
    phrasings: ClassVar[tuple[str, ...]] = ("train",)  # with "held_out" where the task has some
    own_options: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # option → its values, for `begin`
    passed_options: ClassVar[tuple[str, ...]] = ()

    def begin(self, phrasing: str, options: Mapping[str, Any]) -> tuple[str, int]:
        """Called after the environment was reset: arrange the scene with `self.rng`.

        Returns the instruction, and which of the things it means.
        """
        raise NotImplementedError

    def success(self) -> bool:
        """Whether the episode so far is a success; counting steps is for `note`."""
        raise NotImplementedError

    def agent_pos(self) -> np.ndarray:
        """Proprioception alone, (P,): nothing that tells where things are."""
        raise NotImplementedError

    def note(self) -> None:
        """Called once at the start and after each step, before success is asked for."""

    def is_over(self) -> bool:
        """Whether the outcome is settled before the horizon: at the first success."""
        return self.success()

    def present(self) -> np.ndarray:
        """Which of the O things are in this episode's scene, (O,) bool."""
        return np.ones(len(self.things), np.bool_)

    def events(self) -> np.ndarray:
        """First and one-past-last control step in which to act on each thing, (O, 2) int64."""
        return np.tile(np.array([0, self.horizon], np.int64), (len(self.things), 1))

    def knowledge(self) -> Mapping[str, Any]:
        """What else `info["privileged"]` tells experts."""
        return {}

    def reward(self, inner: float, success: bool) -> float:
        """A step's reward, from the environment's own and whether the episode so far is a success."""
        return float(success)

    def __init__(
        self,
        env: gymnasium.Env[Any, np.ndarray],
        *,
        cameras: Sequence[str] | None = None,
        size: int = 64,
        labels: Literal["boxes", "none"] = "boxes",
        on_demand: bool = False,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(env)
        inner: Any = env.unwrapped
        if not isinstance(getattr(inner, "model", None), mujoco.MjModel):
            raise ValueError(f"{type(inner).__name__} has no MuJoCo model and data, which a MujocoTask is made of")
        self.cameras = tuple(self.views if cameras is None else cameras)
        for name in self.cameras:
            if name not in self.views:
                raise unknown("camera", name, self.views)
        if len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"cameras {list(self.cameras)} must be some of {', '.join(self.views)}, each once")
        if not SIZES[0] <= size <= SIZES[1]:
            raise ValueError(f"size {size} must lie between {SIZES[0]} and {SIZES[1]} pixels")
        if labels not in ("boxes", "none"):
            raise ValueError(f"labels {labels!r} must be 'boxes' or 'none'")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode {render_mode!r} must be None or 'rgb_array'")
        if render_mode and not self.cameras:
            raise ValueError(f"render_mode {render_mode!r} needs a camera; name one of {', '.join(self.views)}")
        if not isinstance(env.action_space, spaces.Box):
            raise ValueError(f"the action space of {type(inner).__name__} must be a Box, got {env.action_space}")
        self.size, self.labels, self._render_mode = size, labels, render_mode
        self._on_demand = on_demand
        self._seen: Moment | None = None
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": control_hz(env)}
        low, high = (np.broadcast_to(bound, len(self.agent_pos_names)) for bound in self.agent_pos_bounds)
        self._proprioception = spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
        self._texts = InstructionSpace(MAX_INSTRUCTION, charset=INSTRUCTION_CHARACTERS)
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Dict({name: spaces.Box(0, 255, (size, size, 3), np.uint8) for name in self.cameras}),
                "agent_pos": self._proprioception,
                "instruction": self._texts,
            }
        )
        self.rng = np.random.default_rng()
        self.instruction, self.target, self.step_count = "", 0, 0
        self._renderers: dict[int, Renderer] = {}
        self._drawn: mujoco.MjModel | None = None
        self._over = self._fresh = True

    # Gymnasium.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        options = dict(options or {})
        phrasing = options.pop("phrasing", "train")
        if phrasing not in self.phrasings:
            raise ValueError(f"phrasing {phrasing!r} must be one of {', '.join(self.phrasings)}")
        passed = {name: value for name, value in options.items() if name in self.passed_options}
        for name, value in options.items():
            if name not in passed and name not in self.own_options:
                raise unknown("reset option", name, ("phrasing", *self.own_options, *self.passed_options))
            if name in self.own_options and value not in self.own_options[name]:
                raise ValueError(f"{name} {value!r} must be one of {', '.join(self.own_options[name])}")
        _, info = self.env.reset(seed=seed, options=passed or None)
        if seed is not None:
            self.rng = np.random.default_rng((seed, 4))
        self.step_count, self._over, self._fresh = 0, False, False
        self.instruction, self.target = self.begin(phrasing, options)
        if self.instruction not in self._texts:
            raise ValueError(
                f"instruction {self.instruction!r} must be 1 to {MAX_INSTRUCTION} of the characters "
                f"{INSTRUCTION_CHARACTERS!r}"
            )
        self._warned = self.data.warning.number[BAD_STATES]
        return self._moment(info)[:2]

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        if self._over:
            raise ValueError("step() was called before reset(), or after the episode's end; call reset() first")
        space = self.env.action_space
        assert isinstance(space, spaces.Box)
        values = np.asarray(action, space.dtype)
        if values.shape != space.shape or not np.isfinite(values).all():
            raise ValueError(f"action {action!r} must be {space.shape} finite numbers")
        _, inner, terminated, truncated, info = self.env.step(np.clip(values, space.low, space.high))
        self.step_count += 1
        seen, info, success = self._moment(info)
        terminated = bool(terminated) or not info["stable"] or self.is_over()
        truncated = not terminated and (bool(truncated) or self.step_count >= self.horizon)
        self._over = terminated or truncated
        return seen, self.reward(float(inner), success), terminated, truncated, info

    @property
    def render_mode(self) -> str | None:  # type: ignore[override]
        return self._render_mode

    @property
    def spec(self) -> Any:  # type: ignore[override]
        """The task's own: it is registered as a whole."""
        return self.env.unwrapped.spec

    def render(self) -> np.ndarray:
        """The first camera's picture, (256, 256, 3) uint8."""
        if self._render_mode != "rgb_array":
            raise ValueError('render() needs the environment made with render_mode="rgb_array"')
        if self._fresh:
            raise ValueError("render() was called before reset(); call reset() first")
        return self.picture(self.cameras[0], RENDER_SIZE)

    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
        self._see(None)  # it refers back to here: memory would be freed much later, tens of megabytes an environment
        super().close()

    # Copies, pickled ones too, draw with renderers of their own.

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_renderers": {}, "_drawn": None, "_seen": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        choose_gl_backend()  # it may be another process
        self.__dict__.update(state)

    # What evaluation and experts read.

    @property
    def model(self) -> mujoco.MjModel:
        return self.env.unwrapped.model  # type: ignore[attr-defined]

    @property
    def data(self) -> mujoco.MjData:
        return self.env.unwrapped.data  # type: ignore[attr-defined]

    @property
    def task_description(self) -> str:
        return self.instruction

    @property
    def reset_options(self) -> dict[str, tuple[str, ...]]:
        return {"phrasing": self.phrasings, **self.own_options}

    @property
    def gl_renderer(self) -> str:
        """Name of the OpenGL renderer that draws the pictures."""
        return self._pictures(self.size).gl_name()

    def picture(self, camera: str, size: int) -> np.ndarray:
        """What a camera sees now, (size, size, 3) uint8."""
        return self._pictures(size).draw(self.data, camera)

    def in_picture(self, camera: str, point: np.ndarray) -> tuple[float, float] | None:
        """Where a point (3,) in metres lies in a camera's picture, (x, y) in [0, 1]; None behind the camera."""
        return self._pictures(self.size).in_picture(self.data, camera, point)

    # What people change while they watch.

    def movable(self) -> dict[int, np.ndarray]:
        """Where the things are that can be put elsewhere, (3,) metres by their index: those that nothing holds."""
        return {i: self.data.qpos[joint : joint + 3].copy() for i, joint in self._free_things().items()}

    def move_thing(self, index: int, place: np.ndarray) -> None:
        """Put a thing at a point (3,) in metres, where it comes to rest."""
        joint = self._free_things()[index]
        dof = int(self.model.body_dofadr[find(self.model, "body", self.things[index].bodies[0])])
        self.data.qpos[joint : joint + 3] = place
        self.data.qvel[dof : dof + 6] = 0
        self._settle()

    # Inside.

    def _free_things(self) -> dict[int, int]:
        """Where `qpos` holds the place of each thing of this scene that is a free body, by the thing's index."""
        found = {}
        for i in np.flatnonzero(self.present()):
            bodies = self.things[i].bodies
            body = find(self.model, "body", bodies[0]) if len(bodies) == 1 else 0
            joint = int(self.model.body_jntadr[body])
            if joint >= 0 and int(self.model.jnt_type[joint]) == int(mujoco.mjtJoint.mjJNT_FREE):
                found[int(i)] = int(self.model.jnt_qposadr[joint])
        return found

    def _moment(self, info: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], bool]:
        """What is seen and known now, and whether it is a success."""
        self._settle()
        self.note()
        stable = bool(np.isfinite(self.data.qpos).all())
        stable = stable and np.array_equal(self.data.warning.number[BAD_STATES], self._warned)
        success = stable and bool(self.success())
        moment = Moment(self.cameras, self._draw)
        labelled = Moment(self.cameras if self.labels == "boxes" else (), moment.__getitem__)
        self._see(moment)
        parts: tuple[Mapping[str, np.ndarray], ...] = (
            moment.part(PICTURE),
            labelled.part(BOXES),
            labelled.part(VISIBLE),
        )
        pixels, boxes, visible = parts if self._on_demand else map(dict, parts)
        agent_pos = np.asarray(self.agent_pos(), np.float32)
        if agent_pos.shape != (len(self.agent_pos_names),):
            raise ValueError(f"agent_pos is {agent_pos.shape}, agent_pos_names are {len(self.agent_pos_names)}")
        agent_pos = np.clip(agent_pos, self._proprioception.low, self._proprioception.high)
        known = {
            **self.knowledge(),
            "present": self.present(),
            "target": self.target,
            "events": self.events(),
            "boxes": boxes,
            "visible": visible,
        }
        seen = {"pixels": pixels, "agent_pos": agent_pos, "instruction": self.instruction}
        return seen, {**info, "is_success": success, "stable": stable, "privileged": known}, success

    def _draw(self, camera: str) -> Drawn:
        renderer = self._pictures(self.size)
        renderer.forget_episode()  # other people's environments show and hide things as they like
        if self.labels == "none":
            return (renderer.draw(self.data, camera),)
        picture, boxes, counts = renderer.draw_with_boxes(self.data, camera)
        return picture, boxes, counts >= MIN_VISIBLE_PIXELS

    def _see(self, moment: Moment | None) -> None:
        if self._seen is not None:
            self._seen.end()
        self._seen = moment

    def _settle(self) -> None:
        """Positions of everything as of now: MuJoCo leaves those of before the last integration."""
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        mujoco.mj_tendon(self.model, self.data)

    def _pictures(self, size: int) -> Renderer:
        if self._drawn is not self.model:  # some environments load another model for an episode
            for renderer in self._renderers.values():
                renderer.close()
            self._renderers, self._drawn = {}, self.model
        if size not in self._renderers:
            self._renderers[size] = Renderer(
                self.model,
                size,
                things=self.things,
                cameras=self.views,
                upside_down=self.upside_down,
                backdrop_groups=self.backdrop_groups,
                stock=self.stock,
            )
        return self._renderers[size]


def control_hz(env: gymnasium.Env[Any, Any]) -> float:
    """Control steps per second of simulated time.

    Raises:
        ValueError: the environment does not say.
    """
    inner: Any = env.unwrapped
    step = getattr(inner, "dt", None)
    rate = 1 / step if step else float(env.metadata.get("render_fps") or 0)
    if not rate:
        raise ValueError(f"{type(inner).__name__} says no control rate: neither metadata['render_fps'] nor dt")
    return round(rate) if abs(rate - round(rate)) < 1e-6 else rate
