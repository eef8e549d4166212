"""The contract of a task, and the one registry of tasks.

A task is anything that `gymnasium.make` makes and a `TaskSpec` describes. Its environment must offer:

- the observation `pixels` (camera → (H, W, 3) uint8, square) and `agent_pos` (P,) float32, proprioception alone: the
  policy sees nothing else. The instruction is the observation's `instruction`, or the attribute `task_description`;
- a `Box` action space with finite bounds;
- `info["is_success"]` after the reset and every step: whether the episode so far is a success;
- a horizon, registered as `max_episode_steps`; the control rate in `metadata["render_fps"]`;
- keywords `cameras` (names) and `size` (pixels a side) of its constructor.

Everything else is optional, and is asked for by name with `offers`, never by class:

| name | what it is | what it makes possible |
|---|---|---|
| `info["privileged"]` | by camera `boxes` (O, 4) and `visible` (O,); `target`; `events` (O, 2) | grounding |
| its `present` | (O,) bool, which of the O things this scene has | experts that plan for all things need it |
| its `aims` | (O, 2), what the words for thing o mean and where that is to go, -1 for none | labels for all words |
| its `hand` | (3,) metres, with actions dx, dy and dz | hand and arrow in videos |
| `info["stable"]` | bool: False once the simulation broke down | invalid episodes are told from failed ones |
| `counterfactual(phrasing, rng)` | → (an instruction that means another thing of this scene, its index) | control |
| `judge(index)` | → whether the episode so far succeeds if thing `index` was meant | control |
| `instructions(rng)` | → one text per thing, None for one that no words mean | experts that plan need it |
| `reset_options` | option of `reset` → its values, for example `phrasing` → ("train", "held_out") | controls |
| `target_name` | what the words mean, for people | results |
| `tracking_errors()` | → distances (K,) to the target after each step, metres | plots |
| `judged_errors()` | → those of them that count, (k,) | results |
| `diagnosis()` | → why the episode failed, in a few words, "" if it does not know | results |
| `expert_state()` | → the simulation's state as (K,) float32 of about unit scale | experts that learn |
| `dense_reward()` | → a reward that tells nearer from farther, if `step`'s does not | experts that learn |
| `foresee(expert, steps)` | → the expert's next S actions if nobody disturbed it, (S, A) | DAgger's chunks |
| `foresee(…, thing)` | → the same if the words for this thing were said, with `aims` | labels for all words |
| `picture(camera, size)` | → the scene as (size, size, 3) uint8 | sharper videos |
| `named(options)` | → which thing of this scene a reader's options mean, or None | other words in mid-episode |
| `movable()` | → thing → where it is (3,), of those that can be put elsewhere | dragging |
| `move_thing(index, place)` | puts it at a point (3,) in metres, now | dragging |
| `in_picture(camera, point)` | → where a point (3,) in metres lies, (x, y) in [0, 1], or None | marks in videos |

Shapes of what is in `info` never change. Third parties add tasks with `register_task` in a module of theirs: an entry
point of the group `vla_policy.tasks`, or named by `--task-module`. See docs/extending.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from configs.interface import RobotInterface
from configs.names import near, unknown
from envs.task_modules import import_module, load_entry_points, load_name

Env = gymnasium.Env[Any, Any]

MODULES = "VLA_TASK_MODULES"  # environment variable: worker processes inherit it
LONGEST_NAME = 100  # characters
RESERVED = (".shards", ".partial")  # what unfinished datasets are called
DECIDING = ("mujoco", "gymnasium", "numpy")  # packages that decide what happens in every task
NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")  # a relative path, too, that leads nowhere else


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """Everything about a task that can be known without making it.

    Args:
        name: as users call it, for example "track" or "metaworld/reach".
        env_id: Gymnasium's id.
        success: when an episode is a success: one sentence without a full stop.
        example: an instruction that the task may give.
        horizon: control steps of an episode at most, as in `max_episode_steps`.
        control_hz: control steps per second, as in `metadata["render_fps"]`.
        cameras: that it offers; the first one is the one that people look at.
        action_names, agent_pos_names: names of the dimensions, in their order.
        kwargs: keywords of `gymnasium.make` for this task.
        takes: which keywords its constructor takes beside cameras and size: "labels" ("boxes", or "none" where nobody
            asks for boxes), "randomise" (bool: vary light, colours and cameras) and "on_demand" (bool: draw only what
            is looked at before the next step); and "no_cameras" if cameras may be (), so that nothing is drawn.
        variations: further keywords of its constructor that say how the task is tried, with their usual values, for
            example {"stock": False}; "horizon" among them gets on with it to `max_episode_steps`, too.
        expert: "module:name" of what demonstrates it: a callable `(env, info) -> action`. One that has `towards(env,
            info) -> (O, A)` and `plan(env, infos, steps) -> (K, O, S, A)`, too, says what it would do for every thing
            in the scene; see `envs.tabletop.plans`. Where the environment tells `aims`, one without them must act on
            `info["privileged"]["target"]`, whatever is meant, or say `reads_target = False`.
        reader: "module:name" of a callable `text -> reset options` that puts what a user's words name into the scene;
            it raises ValueError for words that name nothing here.
        verbs: words that speak for this task where several can read what a user says.
        specificity: of tasks that can read what a user says, the one with the highest is meant, whatever the verbs.
        suites: names of the groups that it belongs to, each of which can stand for its tasks.
        difficulty: within its suite, for example "easy".
        version: to be raised when the same seed gives other scenes, pictures or labels: demonstrations of different
            versions are not mixed.
        tolerance: distance in metres that counts as there, where there is one.
        packages: distributions beside MuJoCo, Gymnasium and NumPy that decide what happens, for example "metaworld".
            Their versions are noted with data and results.
    """

    name: str
    env_id: str
    success: str
    example: str
    horizon: int
    control_hz: float
    cameras: tuple[str, ...]
    action_names: tuple[str, ...]
    agent_pos_names: tuple[str, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    takes: tuple[str, ...] = ()
    variations: Mapping[str, Any] = field(default_factory=dict)
    expert: str = ""
    reader: str = ""
    verbs: tuple[str, ...] = ()
    specificity: int = 0
    suites: tuple[str, ...] = ()
    difficulty: str = ""
    version: int = 1
    tolerance: float | None = None
    packages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        name: Any = self.name
        if not isinstance(name, str) or not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
            raise ValueError(
                f"task name {self.name!r} must be words of letters, digits, '_', '-' and '.', with '/' between, and "
                f"{LONGEST_NAME} characters at most"
            )
        if self.name.endswith(RESERVED):
            raise ValueError(f"task name {self.name!r} must not end in {' or '.join(RESERVED)}: unfinished data do")
        for listed in ("cameras", "action_names", "agent_pos_names", "takes", "verbs", "suites", "packages"):
            if isinstance(getattr(self, listed), str):
                raise ValueError(f"task {self.name!r}: {listed} is a text, expected several in a tuple")
            object.__setattr__(self, listed, tuple(getattr(self, listed)))
        kinds: dict[str, tuple[type, ...]] = {
            **dict.fromkeys(("env_id", "success", "example"), (str,)),
            **dict.fromkeys(("horizon", "version"), (int,)),
            "control_hz": (int, float),
        }
        for attribute, accepted in kinds.items():
            value = getattr(self, attribute)
            if not isinstance(value, accepted) or isinstance(value, bool) or value == "":
                raise ValueError(f"task {self.name!r}: {attribute} {value!r} is a {type(value).__name__}, or empty")
        if self.horizon < 1:
            raise ValueError(f"task {self.name!r}: horizon {self.horizon} must be at least 1")
        for attribute in ("expert", "reader"):
            reference = getattr(self, attribute)
            if not isinstance(reference, str) or (reference and not re.fullmatch(r"[\w.]+:[\w.]+", reference)):
                raise ValueError(f"task {self.name!r}: {attribute} {reference!r} must be a text 'module:name'")
        self.interface  # noqa: B018 - checks the names

    def versions(self) -> dict[str, str]:
        """Of the packages that decide what happens in an episode; "unknown" for one that is not installed as such."""
        found = {}
        for name in (*DECIDING, *self.packages):
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = "unknown"
        return found

    def varied(self, variation: Mapping[str, Any]) -> TaskSpec:
        """The task with other values for some of its `variations`.

        Raises:
            ValueError: it does not have one of them, or the value is of another kind.
        """
        for name, value in variation.items():
            if name not in self.variations:
                have = ", ".join(self.variations) or "none"
                hint = near(name, self.variations)
                raise ValueError(f"task {self.name!r} has no variation {name!r}{hint}; it has {have}")
            kind = type(self.variations[name])
            if type(value) is not kind:
                raise ValueError(f"task {self.name!r}: {name} {value!r} must be of type {kind.__name__}")
        if "horizon" not in variation:
            return replace(self, kwargs={**self.kwargs, **variation})
        horizon = variation["horizon"]
        return replace(self, horizon=horizon, kwargs={**self.kwargs, **variation, "max_episode_steps": horizon})

    @property
    def interface(self) -> RobotInterface:
        return RobotInterface(
            action_names=self.action_names,
            agent_pos_names=self.agent_pos_names,
            cameras=self.cameras,
            control_hz=self.control_hz,
        )

    def make_expert(self) -> Any:
        """What demonstrates the task.

        Raises:
            ValueError: there is nothing.
        """
        if not self.expert:
            raise ValueError(
                f"task {self.name!r} has no expert; record demonstrations otherwise, see docs/extending.md"
            )
        return load_name(self.expert, f"task {self.name!r}: expert")

    def read(self, text: str) -> dict[str, Any]:
        """The reset options that put what a user's words name into the scene.

        Raises:
            ValueError: they name nothing the task knows, or the task draws its scenes without asking.
        """
        if not self.reader:
            raise ValueError(f"task {self.name!r} reads no words of a user's; leave --instruction out")
        read = load_name(self.reader, f"task {self.name!r}: reader")
        try:
            options = read(text)
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(f"task {self.name!r}: its reader failed: {type(error).__name__}: {error}") from error
        if not isinstance(options, dict):
            raise ValueError(f"task {self.name!r}: its reader gave {options!r}, expected reset options as a dict")
        return options


_REGISTRY: dict[str, TaskSpec] = {}


def register_task(spec: TaskSpec) -> None:
    """Make a task known by its name; does nothing if it is known already.

    Raises:
        ValueError: another task has the name.
    """
    if _REGISTRY.setdefault(spec.name, spec) != spec:
        raise ValueError(
            f"task {spec.name!r} is registered already, for {_REGISTRY[spec.name].env_id}; choose another name"
        )


def all_tasks() -> dict[str, TaskSpec]:
    """Every task by name: ours, those of installed packages, and those of the modules that were named."""
    load_entry_points()
    for module in filter(None, os.environ.get(MODULES, "").split(os.pathsep)):
        import_module(module, MODULES)
    return dict(_REGISTRY)


def find_task(name: str) -> TaskSpec:
    """The task of this name.

    Raises:
        ValueError: it is unknown; the message names the nearest one.
    """
    known = _REGISTRY if name in _REGISTRY else all_tasks()
    if name not in known:
        raise unknown(
            "task",
            name,
            [*known, *_suites(known)],
            f"choose one of {_listed(known)}; tasks of your own need --task-module",
        )
    return known[name]


def expand_suites(names: Iterable[str]) -> tuple[str, ...]:
    """Names, with those of suites replaced by their tasks, each once."""
    found: list[str] = []
    for name in names:
        suite = [] if name in _REGISTRY else [spec.name for spec in all_tasks().values() if name in spec.suites]
        found += suite or [name]
    return tuple(dict.fromkeys(found))


def find_tasks(names: Iterable[str]) -> tuple[str, ...]:
    """Names of tasks, with suites replaced by their tasks, each once.

    Raises:
        ValueError: one is neither a task nor a suite.
    """
    return tuple(find_task(name).name for name in expand_suites(names))


def use_task_modules(modules: Iterable[str]) -> None:
    """Import modules that register tasks, by name or as a path to a file, here and in every worker to come.

    Raises:
        ValueError: a module cannot be imported.
    """
    before = [m for m in os.environ.get(MODULES, "").split(os.pathsep) if m]
    # Workers may run elsewhere: a path must not depend on the folder.
    named = [str(Path(m).absolute()) if m.endswith(".py") else m for m in modules]
    for module in named:
        import_module(module, "--task-module")
    os.environ[MODULES] = os.pathsep.join(dict.fromkeys([*before, *named]))


def make_task(
    task: str | TaskSpec,
    *,
    cameras: tuple[str, ...],
    size: int,
    labels: bool = True,
    randomise: bool = False,
    on_demand: bool = False,
) -> Env:
    """The environment of a task, with the GL backend chosen.

    Args:
        task: by its name, or a variation of one.
        labels: whether anybody asks for boxes; tasks that can then leave them out.
        randomise: vary the scene's look, in tasks that can.
        on_demand: draw only what is looked at before the next step, in tasks that can.

    Raises:
        ValueError: the task is unknown or cannot be made so; the message says why.
    """
    from envs.gl import choose_gl_backend

    spec = find_task(task) if isinstance(task, str) else task
    keywords: dict[str, Any] = dict(spec.kwargs)
    missing = [camera for camera in cameras if camera not in spec.cameras]
    if missing:
        raise ValueError(f"task {spec.name!r} has no camera {missing[0]!r}; choose from {', '.join(spec.cameras)}")
    if "labels" in spec.takes:
        keywords["labels"] = "boxes" if labels else "none"
    if on_demand and "on_demand" in spec.takes:
        keywords["on_demand"] = True
    if randomise and "randomise" not in spec.takes:
        raise ValueError(f"task {spec.name!r} cannot vary its look; leave collect.randomise at false")
    if randomise:
        keywords["randomise"] = True
    choose_gl_backend()
    try:
        return gymnasium.make(spec.env_id, disable_env_checker=True, cameras=tuple(cameras), size=size, **keywords)
    except ValueError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        why = f"{spec.env_id} could not be made ({type(error).__name__}: {said})"
        raise ValueError(f"task {spec.name!r}: {why}") from error


def offers(env: Env, name: str) -> Any:
    """An optional part of a task by its name, from the environment or a wrapper of it; None where there is none."""
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None


def instruction_of(env: Env, observation: Mapping[str, Any]) -> str:
    """The words that an environment gives with an observation.

    Raises:
        ValueError: it gives none.
    """
    words = observation.get("instruction") or offers(env, "task_description")
    if not isinstance(words, str) or not words.strip():
        raise ValueError(
            f"{_called(env)} gives no instruction: neither observation['instruction'] nor task_description"
        )
    return words


class ActionScale:
    """Between a task's own actions and those of a policy, which lie in [-1, 1]. Exact where the task's do, too."""

    def __init__(self, space: Any) -> None:
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"action space {space} must be a Box with one axis")
        low, high = space.low.astype(np.float32), space.high.astype(np.float32)
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
            raise ValueError(
                f"action space {space} must have finite bounds; wrap it in gymnasium.wrappers.RescaleAction"
            )
        self.low, self.high = low, high
        self._middle, self._half = (high + low) / 2, (high - low) / 2

    def to_task(self, unit: np.ndarray) -> np.ndarray:
        """From [-1, 1], (A,) float32; what lies outside is cut."""
        action: np.ndarray = self._middle + self._half * np.clip(unit, -1, 1).astype(np.float32)
        return action

    def to_unit(self, action: np.ndarray) -> np.ndarray:
        """To [-1, 1], (A,) float32; what lies outside the task's bounds is cut."""
        unit = (np.asarray(action, np.float32) - self._middle) / self._half
        return np.clip(unit, -1, 1)


def _called(env: Env) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def _suites(known: Mapping[str, TaskSpec]) -> list[str]:
    return list(dict.fromkeys(suite for spec in known.values() for suite in spec.suites))


def _listed(known: Mapping[str, TaskSpec]) -> str:
    """Names to choose from: single tasks, and suites in place of their tasks."""
    return ", ".join([*(name for name, spec in known.items() if not spec.suites), *_suites(known)])
