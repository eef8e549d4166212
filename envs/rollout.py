"""The one loop in which everything happens: an actor acts in worlds, and recorders look on.

Demonstrations, evaluations, videos and grounding are all this loop, with other actors and other recorders. Rows run
side by side in lockstep and are always as many, so that an actor that decides for all of them at once can make an
episode's outcome depend on its seed alone.

R rows, A actions.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from envs.on_demand import OnDemand
from envs.task import ActionScale, Env, instruction_of, offers

Observation = dict[str, Any]


class EpisodeError(RuntimeError):
    """An environment failed in the middle of an episode; the message says with which seed, and where."""


Beat = Callable[..., None]


@dataclass(kw_only=True)
class World:
    """One episode in progress.

    Args:
        env: its environment. seed: that it was reset with. row: its place among those that run side by side.
        action_names: of the environment's actions, in their order.
        scale: between the environment's actions and [-1, 1].
        observation, info: the newest that the environment gave; what the actor sees may be changed, see `Scenario`.
        instruction: what the actor reads. task_instruction: what the environment said. named: the thing that the
            first one means, None where it means what the environment does.
        step: control steps done. done: whether the episode is over.
    """

    env: Env
    seed: int
    row: int
    action_names: tuple[str, ...]
    scale: ActionScale
    observation: Observation = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    instruction: str = ""
    task_instruction: str = ""
    named: int | None = None
    step: int = 0
    done: bool = False


class Actor(Protocol):
    """Decides. Rows that are None are idle, or their episodes are over."""

    def reset(self, worlds: Sequence[World | None]) -> None:
        """New episodes begin, all at once."""

    def act(self, worlds: Sequence[World | None]) -> Sequence[np.ndarray | None]:
        """An action (A,) for each world, in the bounds of its action space; None for rows that are None."""


class Recorder(Protocol):
    """Looks on. All methods are called for one world at a time."""

    def begin(self, world: World) -> None:
        """The episode was reset; nobody has acted yet."""

    def step(self, world: World, action: np.ndarray) -> None:
        """The actor chose this action for what the world shows now; it is carried out next."""

    def end(self, world: World) -> None:
        """The episode is over."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """How episodes begin, and what the actor sees and reads of them.

    Args:
        options: for the environment's reset.
        instruction: what the actor reads in place of the environment's words; None leaves them.
        counterfactual: read an instruction for another thing of the same scene.
        view: what becomes of an observation before the actor sees it.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    instruction: str | None = None
    counterfactual: bool = False
    view: Callable[[Observation], Observation] | None = None


class Rollout:
    """Episodes in progress, one per seed, side by side. Whoever has time to wait between two steps makes them one by
    one; `run` makes all of them.

    Args:
        envs: an environment per row.
        seeds: a seed per row; None leaves it idle.
        action_names: of the environments' actions.
        scenario: of all episodes, or of the episode of a seed.
        beat: called before every piece of work, with its seed, or without one for what all seeds share; see
            `envs.workers.Pulse`.

    `worlds` are the episodes in the order of the seeds. Their `instruction` and `named` may be changed between two
    steps: actors read them anew.

    Raises:
        EpisodeError: an environment fails, or gives what breaks the contract; here and in `step`.
        ValueError: an environment's actions have no bounds, or it gives no instruction.
    """

    def __init__(
        self,
        envs: Sequence[Env],
        seeds: Sequence[int | None],
        actor: Actor,
        recorders: Sequence[Recorder] = (),
        *,
        action_names: tuple[str, ...],
        scenario: Scenario | Callable[[int], Scenario | None] | None = None,
        beat: Beat | None = None,
    ) -> None:
        self._actor, self._recorders = actor, recorders
        self._beat = beat or (lambda *_: None)
        self._rows: list[World | None] = [None] * len(envs)
        for row, (env, seed) in enumerate(zip(envs, seeds, strict=True)):
            if seed is not None:
                scale = ActionScale(env.action_space)
                self._rows[row] = World(env=env, seed=seed, row=row, action_names=action_names, scale=scale)
        self.worlds = [world for world in self._rows if world is not None]
        self._scenarios = {
            w.row: (scenario(w.seed) if callable(scenario) else scenario) or Scenario() for w in self.worlds
        }
        for world in self.worlds:
            self._beat(world.seed)
            _reset(world, self._scenarios[world.row])
            for recorder in recorders:
                recorder.begin(world)
        self._beat()
        actor.reset(self._rows)

    @property
    def done(self) -> bool:
        """Whether all episodes are over."""
        return all(world.done for world in self.worlds)

    def step(self) -> None:
        """One control step of every episode that is not over."""
        self._beat()
        actions = self._actor.act([None if world is None or world.done else world for world in self._rows])
        for world in self.worlds:
            if world.done:
                continue
            self._beat(world.seed)
            action = actions[world.row]
            assert action is not None
            for recorder in self._recorders:
                recorder.step(world, action)
            with _named(world):
                seen, _, terminated, truncated, world.info = world.env.step(action)
            world.step += 1
            world.done = bool(terminated or truncated)
            _check(world, seen)
            view = self._scenarios[world.row].view
            world.observation = view(seen) if view else seen
            if world.done:
                for recorder in self._recorders:
                    recorder.end(world)


def run(
    envs: Sequence[Env],
    seeds: Sequence[int | None],
    actor: Actor,
    recorders: Sequence[Recorder] = (),
    *,
    action_names: tuple[str, ...],
    scenario: Scenario | Callable[[int], Scenario | None] | None = None,
    beat: Beat | None = None,
) -> list[World]:
    """Run one episode per seed to its end; the finished worlds, in the order of the seeds. See `Rollout`."""
    episodes = Rollout(envs, seeds, actor, recorders, action_names=action_names, scenario=scenario, beat=beat)
    while not episodes.done:
        episodes.step()
    return episodes.worlds


def _reset(world: World, scenario: Scenario) -> None:
    with _named(world):
        seen, world.info = world.env.reset(seed=world.seed, options=dict(scenario.options) or None)
    _check(world, seen)
    world.task_instruction = instruction_of(world.env, seen)
    world.instruction = scenario.instruction or world.task_instruction
    if scenario.counterfactual:
        rng = np.random.default_rng((world.seed, 2))
        counterfactual = offers(world.env, "counterfactual")
        with _named(world):
            world.instruction, world.named = counterfactual(scenario.options.get("phrasing", "train"), rng)
        words: Any = world.instruction
        if not isinstance(words, str) or not words.strip():
            raise EpisodeError(f"seed {world.seed}: counterfactual gave {world.instruction!r}, expected an instruction")
    world.observation = scenario.view(seen) if scenario.view else seen


def _check(world: World, seen: Observation) -> None:
    """Refuse what would be recorded or judged wrongly without a word; the contract was checked on the first step. What
    is drawn on demand is not looked at here.
    """
    agent_pos, success = seen["agent_pos"], world.info.get("is_success")
    for name, picture in () if isinstance(seen["pixels"], OnDemand) else seen["pixels"].items():
        if picture.dtype != np.uint8:
            raise EpisodeError(f"seed {world.seed}: pixels[{name!r}] became {picture.dtype}, not uint8")
    if not np.isfinite(agent_pos).all():
        raise EpisodeError(f"seed {world.seed}: agent_pos {agent_pos} is not finite")
    if not isinstance(success, bool | np.bool_ | int):
        raise EpisodeError(f"seed {world.seed}: info['is_success'] is {success!r}, expected true or false")
    labels = world.info.get("privileged", {}).get("boxes", {})
    for camera, boxes in () if isinstance(labels, OnDemand) else labels.items():
        if not ((boxes >= -1e-6) & (boxes <= 1 + 1e-6)).all():
            raise EpisodeError(f"seed {world.seed}: boxes in {camera!r} must lie in [0, 1] of the picture, got {boxes}")


@contextmanager
def _named(world: World) -> Iterator[None]:
    """What somebody's environment makes of a mistake of its own must not pass for a mistake of the user's."""
    try:
        yield
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        raise EpisodeError(f"seed {world.seed}: {type(error).__name__}: {error} ({where})") from error


def blank(seen: Observation) -> Observation:
    """An observation with every picture replaced by an even grey one."""
    return {**seen, "pixels": {name: np.full_like(picture, 128) for name, picture in seen["pixels"].items()}}
