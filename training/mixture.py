"""Collection for DAgger: workers let policy and expert act by turns, and the expert labels every state that is visited.

What is written is an ordinary dataset, in shards as `training.collect` writes them. Its header says `on_policy`: what
was done is not what the labels say, so that labels of successive steps are not always a chunk; see
`training.data.batches`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from configs.collect import CollectConfig
from configs.dagger import DaggerConfig
from configs.evaluation import RunnerConfig
from configs.interface import check_policy_serves
from configs.run import RunConfig
from envs.actors import MixedActor
from envs.contract import check_contract
from envs.rollout import World, run
from envs.task import Env, TaskSpec, find_task, make_task
from envs.workers import Pulse
from training.collect import content_of, describe_dataset, expert_of, told_other
from training.data.episodes import Dataset, Episode
from training.recorder import EpisodeRecorder
from training.shards import OnProgress, Plan, collect_plans, shards_of, wanted_of, write_shard
from training.start import weights_print
from vla_policy.checkpoint import Checkpoint, load_checkpoint
from vla_policy.runner import PolicyActor, PolicyRunner

ROWS = 5  # episodes side by side: the policy decides for all at once, which costs less than one by one


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Who acts in a round.

    Args:
        policy: folder of its checkpoint. runner: how its chunks are executed.
        share: probability that the expert acts. config: the other settings.
        number: of the round, from 1. seed: of the round's collection.
    """

    policy: Path
    runner: RunnerConfig
    share: float
    config: DaggerConfig
    number: int
    seed: int

    def content(self) -> dict[str, Any]:
        """What decides the data beside the settings of a collection."""
        policy = weights_print(self.policy)
        mixture = {"round": self.number, "policy": policy, "share": self.share, **self.config.mixture()}
        return {**mixture, "runner": asdict(self.runner)}


def mixture_config(run: RunConfig, data: Dataset, mixture: Mixture) -> CollectConfig:
    """The settings of a round's collection, such that the policy can learn from it beside a task's dataset: its cameras
    and chunks, the same size, other scenes, and no noise: the policy's own mistakes take its place.
    """
    return replace(
        run.collect,
        episodes=mixture.config.episodes,
        cameras=run.policy.cameras,
        size=int(data.arrays["pixels"].shape[2]),
        plan_steps=max(int(data.arrays["action"].shape[2]), run.policy.head.chunk),
        noise=0.0,
        detours=0.0,
        seed=mixture.seed,
    )


def collect_mixture(
    tasks: Mapping[str, CollectConfig],
    mixture: Mixture,
    paths: Mapping[str, Path],
    *,
    on_progress: OnProgress | None = None,
) -> list[Dataset]:
    """Collect a round's dataset of each task, going on from the shards that an interrupted call left beside them.

    Args:
        tasks: with the settings of each.
        paths: where the datasets are to be.

    Raises:
        ValueError: the policy cannot act in a task, or a task has no expert.
        DatasetError: as `training.shards.collect_plans`.
    """
    plans = []
    for task, config in tasks.items():
        spec = find_task(task)
        expert_of(spec, config)
        content = {**content_of(config, spec), "mixture": mixture.content()}
        setup = (task, config, mixture, content, shards_of(paths[task]))
        plans.append(Plan(path=paths[task], config=config, content=content, setup=setup))
    return collect_plans(plans, _prepare, on_progress=on_progress)


class MixtureDemonstrator:
    """Makes episodes of one task, as many side by side as there are environments."""

    def __init__(
        self, envs: list[Env], spec: TaskSpec, config: CollectConfig, mixture: Mixture, policy: Checkpoint
    ) -> None:
        check_policy_serves(policy.interface, spec.interface, spec.name, ", ".join(policy.purpose.tasks))
        experts = [expert_of(spec, config) for _ in envs]
        acting = PolicyActor(PolicyRunner(policy, len(envs), mixture.runner))
        self._actor = actor = MixedActor(experts, acting, mixture.share, mixture.config.stretch, mixture.runner.execute)
        self._envs, self._names = envs, spec.action_names
        self._scenario = told_other(envs[0], config.counterfactual)
        self._rows = _Rows(
            [
                EpisodeRecorder(
                    config.cameras,
                    expert,
                    config.plan_steps,
                    label=_label(actor),
                    rng=_generator(actor),
                    foresees=lambda _: True,
                )
                for expert in experts
            ]
        )

    def demonstrate(self, seeds: Sequence[int], pulse: Pulse | None = None, row: int = 0) -> list[Episode | None]:
        """The episodes of these environment seeds, side by side from this row on: where one is in the batch decides the
        last digits of what the policy does. None where the simulation became unstable.
        """
        rows: list[int | None] = [*[None] * row, *seeds, *[None] * (len(self._envs) - row - len(seeds))]
        beat = None if pulse is None else pulse.beat
        run(self._envs, rows, self._actor, [self._rows], action_names=self._names, scenario=self._scenario, beat=beat)
        return [recorder.episode for recorder in self._rows.recorders[row : row + len(seeds)]]


class _Rows:
    """A recorder for each of several rows, as one."""

    def __init__(self, recorders: list[EpisodeRecorder]) -> None:
        self.recorders = recorders

    def begin(self, world: World) -> None:
        self.recorders[world.row].begin(world)

    def step(self, world: World, action: np.ndarray) -> None:
        self.recorders[world.row].step(world, action)

    def end(self, world: World) -> None:
        self.recorders[world.row].end(world)


def _label(actor: MixedActor) -> Callable[[World], np.ndarray]:
    return lambda world: actor.clean[world.row]


def _generator(actor: MixedActor) -> Callable[[World], np.random.Generator]:
    return lambda world: actor.generators[world.row]


def _prepare(
    pulse: Pulse, setup: tuple[str, CollectConfig, Mixture, dict[str, Any], Path], stack: ExitStack
) -> Callable[[int], None]:
    """In a worker: loads the policy and makes the environments of a task; what it returns collects one shard."""
    torch.set_num_threads(1)  # the same arithmetic for any number of workers, and no fight for cores
    task, config, mixture, content, folder = setup
    spec, policy = find_task(task), load_checkpoint(mixture.policy)
    envs: list[Env] = []
    for _ in range(ROWS):
        env = make_task(task, cameras=config.cameras, size=config.size, randomise=config.randomise)
        stack.callback(env.close)
        if not envs:
            check_contract(env, spec, config.cameras, config.size)
        cut = mixture.config.max_steps
        envs.append(gymnasium.wrappers.TimeLimit(env, cut) if cut else env)
        pulse.beat()
    demonstrator = MixtureDemonstrator(envs, spec, config, mixture, policy)
    header = {**describe_dataset(envs[0], spec, config, content), "on_policy": True}

    def handle(shard: int) -> None:
        wanted, keep = wanted_of(config, shard), mixture.config.keep_failures

        def episodes(seeds: Sequence[int], first: int, made: int) -> Iterator[Episode | None]:
            while first < len(seeds):
                row = first % ROWS  # whatever was interrupted before
                group = seeds[first : first + min(ROWS - row, max(wanted - made, 1))]
                for episode in demonstrator.demonstrate(group, pulse, row):
                    made += episode is not None and (episode.success or keep)
                    yield episode
                first += len(group)

        write_shard(folder, shard, config, header, episodes, keep_failures=keep)

    return handle
