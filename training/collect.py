"""Demonstrations: parallel workers run the expert under injected noise, and write shards (see `training.shards`).

The executed action carries noise while clean ones are stored as labels (DART, Laskey et al. 2017):
the policy sees how to recover from states the expert alone would never visit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from configs.collect import CollectConfig
from envs.actors import NoisyExpert
from envs.contract import check_contract
from envs.rollout import Beat, Scenario, run
from envs.task import Env, TaskSpec, find_task, make_task, offers
from envs.workers import Pulse
from training.data.episodes import Dataset, Episode
from training.recorder import EpisodeRecorder
from training.shards import OnProgress, Plan, collect_plans, shards_of, write_shard


class Demonstrator:
    """Makes episodes of one task, one after the other, in one environment.

    Args:
        scout: a second environment of the task that draws nothing. Each episode is tried in it first, so that no
            picture is drawn of one that fails; the same seed gives the same episode in both.
    """

    def __init__(self, env: Env, spec: TaskSpec, config: CollectConfig, scout: Env | None = None) -> None:
        expert = expert_of(spec, config)
        self._env, self._scout, self._names = env, scout, spec.action_names
        self._scenario = told_other(env, config.counterfactual)
        self._actor = actor = NoisyExpert(expert, config.noise, config.detours)
        self._recorder = EpisodeRecorder(
            config.cameras,
            expert,
            config.plan_steps,
            label=lambda _: actor.clean,
            rng=lambda _: actor.rng,
            foresees=lambda _: actor.strays,
        )

    def demonstrate(self, seed: int, beat: Beat | None = None) -> Episode | None:
        """The episode of this environment seed, None if the simulation became unstable or the scout failed."""
        own = None if beat is None else lambda *_: beat(seed)  # all that is done is done for this seed
        scenario = self._scenario(seed)
        if self._scout is not None:
            [tried] = run([self._scout], [seed], self._actor, action_names=self._names, scenario=scenario, beat=own)
            if not tried.info["is_success"]:
                return None
        run([self._env], [seed], self._actor, [self._recorder], action_names=self._names, scenario=scenario, beat=own)
        return self._recorder.episode


def expert_of(spec: TaskSpec, config: CollectConfig) -> Any:
    """Who demonstrates.

    Raises:
        ValueError: nobody does, or what was learned is not for this task.
    """
    if not config.expert:
        return spec.make_expert()
    from training.reinforcement.expert import load_expert

    return load_expert(config.expert, spec)


def told_other(env: Env, share: float) -> Callable[[int], Scenario | None]:
    """How the episode of a seed begins, if in a share of them the other thing is told that can be done in the scene;
    where the environment does not offer that, all begin as usual.
    """
    can = "other" in (offers(env, "reset_options") or {}).get("told", ())

    def scenario(seed: int) -> Scenario | None:
        other = can and np.random.default_rng((seed, 6)).random() < share
        return Scenario(options={"told": "other"}) if other else None

    return scenario


def collect(task: str, config: CollectConfig, path: Path, *, on_progress: OnProgress | None = None) -> Dataset:
    """Collect a task's dataset at `path`, going on from the shards an interrupted call left beside it.

    `on_progress` is called as shards are finished.

    Raises:
        ValueError: the task is unknown, has no expert, or cannot be recorded so.
        DatasetError: `path` holds a dataset made otherwise, the expert keeps failing, or workers keep dying.
        LockedError: another process collects there.
    """
    return collect_tasks([task], config, {task: path}, on_progress=on_progress)[0]


def collect_tasks(
    tasks: Sequence[str], config: CollectConfig, paths: Mapping[str, Path], *, on_progress: OnProgress | None = None
) -> list[Dataset]:
    """The same for several tasks with the same settings, by one pool of workers: none waits for the last shard of a
    task while there are others.
    """
    plans = []
    for task in tasks:
        spec = find_task(task)
        expert_of(spec, config)
        setup = (task, config, shards_of(paths[task]))
        plans.append(Plan(path=paths[task], config=config, content=content_of(config, spec), setup=setup))
    return collect_plans(plans, _prepare, on_progress=on_progress)


def describe_dataset(env: Env, spec: TaskSpec, config: CollectConfig, content: dict[str, Any]) -> dict[str, Any]:
    """What the header of a collected dataset says of it."""
    return {
        "task": spec.name,
        "collection": content,
        "cameras": list(config.cameras),
        "action_names": list(spec.action_names),
        "agent_pos_names": list(spec.agent_pos_names),
        "control_hz": spec.control_hz,
        "versions": spec.versions(),
        "gl_renderer": offers(env, "gl_renderer") or "",
    }


def content_of(config: CollectConfig, spec: TaskSpec) -> dict[str, Any]:
    """What decides the data; of an expert that was learned, its weights."""
    content = {**config.content(spec.name), "version": spec.version}
    if config.expert:
        from training.reinforcement.expert import expert_print

        content["expert"] = expert_print(config.expert)
    return content


def _prepare(pulse: Pulse, setup: tuple[str, CollectConfig, Path], stack: ExitStack) -> Callable[[int], None]:
    """In a worker: makes the environment of a task; what it returns collects one shard."""
    task, config, folder = setup
    spec = find_task(task)
    env = make_task(task, cameras=config.cameras, size=config.size, randomise=config.randomise)
    stack.callback(env.close)
    check_contract(env, spec, config.cameras, config.size)
    scout = None
    if "no_cameras" in spec.takes and not hasattr(expert_of(spec, config), "plan"):  # those that plan seldom fail
        scout = make_task(task, cameras=(), size=config.size, labels=False, randomise=config.randomise)
        stack.callback(scout.close)
    demonstrator = Demonstrator(env, spec, config, scout)
    header = describe_dataset(env, spec, config, content_of(config, spec))

    def episodes(seeds: Sequence[int], first: int, _kept: int) -> Iterator[Episode | None]:
        return (demonstrator.demonstrate(seed, pulse.beat) for seed in seeds[first:])

    return lambda shard: write_shard(folder, shard, config, header, episodes)
