"""Who can act in a rollout without a policy: the expert, the expert under noise, chance, and whoever repeats himself.

The policy as an actor is `vla_policy.runner.PolicyActor`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from envs.rollout import Actor, EpisodeError, World

DETOUR_STEPS = (10, 38)  # control steps; success must still be possible after them
NOISE_CORRELATION = 0.75  # of the noise from one control step to the next


class ExpertActor:
    """The task's own expert, which may know everything. It goes to what the world's words mean."""

    def __init__(self, expert: Callable[..., np.ndarray]) -> None:
        self.expert = expert

    def reset(self, worlds: Sequence[World | None]) -> None:
        pass

    def act(self, worlds: Sequence[World | None]) -> list[np.ndarray | None]:
        return [None if w is None else _bounded(w, self.expert(w.env, _aimed(w, w.named))) for w in worlds]


class NoisyExpert:
    """The expert with noise on what it does (DART, Laskey et al. 2017) and, where it can act on any thing of a scene,
    detours: the episode then begins on the way to another thing. One row.

    It can where it plans for all of them, and where the environment tells their `aims`, see `envs.task`.

    Args:
        expert: see `envs.task.TaskSpec`.
        noise: standard deviation of the noise in the noisiest episodes, 1 being full speed; each draws its own level.
        detours: share of the episodes that begin on the way to another thing.

    `clean` is what the expert would have done last, without noise and detour, (A,) in [-1, 1]; `strays` whether it was
    on a detour then.
    """

    def __init__(self, expert: Any, noise: float, detours: float) -> None:
        self.expert, self.noise, self.detours = expert, noise, detours
        self._plans = hasattr(expert, "towards")
        self.strays = False
        self.clean = np.zeros(0, np.float32)

    def reset(self, worlds: Sequence[World | None]) -> None:
        [world] = worlds
        assert world is not None
        rng = self.rng = np.random.default_rng((world.seed, 1))
        level = self.noise * rng.uniform()  # standard deviation of the noise
        self._fresh = level * np.sqrt(1 - NOISE_CORRELATION**2)
        self._drift = np.zeros(len(world.action_names))
        known = world.info.get("privileged", {})
        anything = self._plans or ("aims" in known and reads_target(self.expert))
        strays = rng.uniform() < self.detours and anything
        self._detour, self._stray = rng.integers(*DETOUR_STEPS) if strays else 0, 0
        if self.detours and anything:
            can = known["present"] if self._plans else known["aims"][:, 0] >= 0
            others = [i for i in np.flatnonzero(can) if i != known["target"]]
            if others:
                self._stray = int(others[rng.integers(len(others))])
            else:
                self._detour = 0

    def act(self, worlds: Sequence[World | None]) -> list[np.ndarray | None]:
        [world] = worlds
        assert world is not None
        self.strays = bool(world.step < self._detour)
        if self.strays and self._plans:
            towards = self.expert.towards(world.env, world.info)
            meant, clean = towards[self._stray], towards[world.info["privileged"]["target"]]
        else:
            clean = _action(world, self.expert(world.env, world.info))
            meant = _action(world, self.expert(world.env, _aimed(world, self._stray))) if self.strays else clean
        meant, self.clean = world.scale.to_unit(meant), world.scale.to_unit(clean)
        self._drift = NOISE_CORRELATION * self._drift + self._fresh * self.rng.standard_normal(len(self._drift))
        return [world.scale.to_task(np.clip(meant + self._drift, -1, 1).astype(np.float32))]


class MixedActor:
    """The expert and another actor by turns, as in DAgger (Ross et al. 2011): who acts is drawn anew after every
    stretch, and what the expert would do is known at every step.

    Args:
        experts: see `envs.task.TaskSpec`; one a row, so that one which remembers something does so for its own episode.
        other: who acts where the expert does not. It sees every step, so that it knows what came before its turn.
        share: probability that the expert acts.
        stretch: control steps that whoever was drawn acts for, the first time of an episode a random part of them;
            0 draws once an episode.
        every: control steps between two decisions of the other actor. Turns begin with such a decision, so that none is
            carried out that began while the expert acted.

    `clean` is what the expert would do now, by row, (A,) in [-1, 1]; `generators` are the episodes' own, by row.
    """

    def __init__(self, experts: Sequence[Any], other: Actor, share: float, stretch: int, every: int = 1) -> None:
        self._experts, self._other = experts, other
        self._share, self._stretch, self._every = share, stretch, every

    def reset(self, worlds: Sequence[World | None]) -> None:
        self.clean: dict[int, np.ndarray] = {}
        self.generators = {w.row: np.random.default_rng((w.seed, 7)) for w in worlds if w is not None}
        self._turn: dict[int, bool] = {}  # whether it is the expert's
        self._until: dict[int, float] = {}
        self._other.reset(worlds)

    def act(self, worlds: Sequence[World | None]) -> list[np.ndarray | None]:
        others = self._other.act(worlds)
        actions: list[np.ndarray | None] = []
        for world, other in zip(worlds, others, strict=True):
            if world is None:
                actions.append(None)
                continue
            meant = _bounded(world, self._experts[world.row](world.env, world.info))
            self.clean[world.row] = world.scale.to_unit(meant)
            actions.append(meant if self._experts_turn(world) else other)
        return actions

    def _experts_turn(self, world: World) -> bool:
        row, rng = world.row, self.generators[world.row]
        begins = row not in self._until
        if begins or (world.step >= self._until[row] and world.step % self._every == 0):
            self._turn[row] = bool(rng.random() < self._share)
            length = self._stretch
            if begins and length:
                length = int(rng.integers(1, length + 1))
            self._until[row] = world.step + length if length else math.inf
        return self._turn[row]


class RandomActor:
    """Uniform random actions, from a generator of the episode's seed."""

    def reset(self, worlds: Sequence[World | None]) -> None:
        self._generators = [None if world is None else np.random.default_rng((world.seed, 3)) for world in worlds]

    def act(self, worlds: Sequence[World | None]) -> list[np.ndarray | None]:
        actions: list[np.ndarray | None] = []
        for world, rng in zip(worlds, self._generators, strict=True):
            if world is None or rng is None:
                actions.append(None)
                continue
            actions.append(world.scale.to_task(rng.uniform(-1, 1, len(world.action_names)).astype(np.float32)))
        return actions


class RepeatingActor:
    """Asks another actor once, and repeats its first action to the end."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor

    def reset(self, worlds: Sequence[World | None]) -> None:
        self._first: Sequence[np.ndarray | None] | None = None
        self._actor.reset(worlds)

    def act(self, worlds: Sequence[World | None]) -> Sequence[np.ndarray | None]:
        if self._first is None:
            self._first = self._actor.act(worlds)
        return self._first


class ModelActor:
    """A model that predicts from one environment's own observation, such as one of Stable-Baselines3.

    Args:
        model: has `predict(observation, deterministic=True) -> (action, state)`.
        observe: what of a world the model sees.
    """

    def __init__(self, model: Any, observe: Callable[[World], Any]) -> None:
        self._model, self._observe = model, observe

    def reset(self, worlds: Sequence[World | None]) -> None:
        pass

    def act(self, worlds: Sequence[World | None]) -> list[np.ndarray | None]:
        return [None if world is None else _bounded(world, self._predict(world)) for world in worlds]

    def _predict(self, world: World) -> np.ndarray:
        action, _ = self._model.predict(self._observe(world), deterministic=True)
        return np.asarray(action)


def reads_target(expert: Any) -> bool:
    """Whether an expert acts on the `target` that it is told, as one that was learned does not."""
    return bool(getattr(expert, "reads_target", True))


def _aimed(world: World, thing: int | None) -> dict[str, Any]:
    """What is known, with this thing as the target; as it is if None."""
    if thing is None:
        return world.info
    return {**world.info, "privileged": {**world.info["privileged"], "target": thing}}


def _bounded(world: World, action: np.ndarray) -> np.ndarray:
    bounded: np.ndarray = np.clip(_action(world, action), world.scale.low, world.scale.high)
    return bounded


def _action(world: World, action: np.ndarray) -> np.ndarray:
    """What an expert or a model gave, if it is an action."""
    try:
        given = np.asarray(action, np.float32)
    except (TypeError, ValueError):
        given = np.zeros(0, np.float32)
    if given.shape != world.scale.low.shape or not np.isfinite(given).all():
        names = ", ".join(world.action_names)
        raise EpisodeError(f"seed {world.seed}: the expert gave {action!r}, expected finite numbers for {names}")
    return given
