"""One round of DAgger (Ross, Gordon and Bagnell 2011): the policy of the round before acts by turns with the expert,
which labels every state that is visited; then training goes on with all that was labelled so far.

A round is a folder: `data/TASK`, ordinary datasets, and `train`, an ordinary run. `eval.dagger` puts rounds in a row
and judges them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from configs.dagger import FIRST_SEED
from configs.run import RunConfig
from training.commands import train_all
from training.data.batches import SampleConfig, Sampler
from training.data.episodes import Dataset
from training.mixture import Mixture, collect_mixture, mixture_config
from training.progress import Progress, brief
from training.provenance import collection_seeds
from training.run_folder import CHECKPOINT, STATE
from training.start import check_shapes, load_start
from training.state import has_state
from vla_policy.checkpoint import load_checkpoint, save_checkpoint

TRAIN = "train"
DATA = "data"


def check_start(start: Path, config: RunConfig, datasets: Sequence[Dataset]) -> None:
    """Refuse a policy that could not go on with these data, before the first round is collected.

    Raises:
        ValueError: it could not; the message says why.
    """
    begun, policy = load_start(start, datasets), config.policy
    samples = SampleConfig(ages=policy.ages, chunk=policy.head.chunk, cameras=policy.cameras)
    names = list(begun.purpose.action_names)
    shapes = Sampler(datasets, samples, begun.tokenizer, names).shapes(len(names), begun.tokenizer.size)
    check_shapes(start, begun.policy.shapes, shapes)


def first_seed(config: RunConfig, base: Sequence[Dataset], start: Path | None) -> int:
    """What the seeds of the rounds' collections count from: round n has this one and n. It is beyond those of all data
    that the policy has learned from or begins with, so that no scene comes back.
    """
    learned = set() if start is None else collection_seeds(load_checkpoint(start).provenance)
    given = collection_seeds({"data": [each.header for each in base]})
    return max(config.collect.seed + FIRST_SEED, *learned, *given)


def collect_round(
    config: RunConfig,
    base: Sequence[Dataset],
    number: int,
    policy: Path,
    folder: Path,
    episodes: Mapping[str, int],
    seed: int,
) -> list[Dataset]:
    """The datasets of a round, a task each, below `folder`; those that are there are taken as they are.

    Args:
        base: the demonstrations of each task, which the round's datasets are to be joined with.
        number: of the round, from 1.
        policy: the checkpoint that acts.
        episodes: of each task.
        seed: of the round's collection, see `first_seed`.

    Raises:
        DatasetError: as `training.shards.collect_plans`.
    """
    dagger = config.dagger
    mixture = Mixture(
        policy=policy,
        runner=config.eval.runner,
        share=dagger.share(number),
        config=dagger,
        number=number,
        seed=seed,
    )
    tasks = {}
    for demonstrations in base:
        task = str(demonstrations.header["task"])
        tasks[task] = replace(mixture_config(config, demonstrations, mixture), episodes=episodes[task])
    total = sum(each.episodes for each in tasks.values())
    with Progress(f"round {number}: collect", total, "episodes") as progress:

        def show(episodes: int, failures: int, rate: float) -> None:
            progress.update(episodes, f"{brief(rate)} frames/s, {failures} left out")

        return collect_mixture(tasks, mixture, {task: folder / DATA / task for task in tasks}, on_progress=show)


def train_round(
    config: RunConfig,
    datasets: list[Dataset],
    number: int,
    start: Path | None,
    folder: Path,
    weights: Mapping[str, float] | None = None,
) -> int:
    """Train for a round, going on where an interrupted call stopped; the exit code. The last state is kept.

    Args:
        datasets: all that was labelled so far.
        number: 0 is the first training, with the settings of `train`; later ones have steps and rate of `dagger`.
        start: the checkpoint of the round before; None in round 0.
        weights: how much each task counts; alike if left out.

    Raises:
        TrainingError: as `training.bc.train`.
    """
    train = config.train
    if number:
        dagger = config.dagger
        # Another seed: else each round would draw the places of its samples as the one before.
        train = replace(train, steps=dagger.steps, learning_rate=dagger.learning_rate, seed=train.seed + number)
    out = folder / TRAIN
    return train_all(
        replace(config, train=train),
        datasets,
        out,
        resume=has_state(out / STATE),
        weights=weights,
        start=start,
        keep_state=True,
    )


def blend_round(config: RunConfig, number: int, start: Path | None, folder: Path) -> None:
    """Write a round's policy if it is a mean of what its training began and ended with, see `DaggerConfig.blend`."""
    share = config.dagger.blend
    if start is None or not _blends(config, number):
        return
    begun, trained = load_checkpoint(start), load_checkpoint(folder / TRAIN / CHECKPOINT)
    before, after = begun.policy.state_dict(), trained.policy.state_dict()
    mean = {
        name: torch.lerp(before[name].to(value), value, share) if value.is_floating_point() else value
        for name, value in after.items()
    }
    trained.policy.load_state_dict(mean)
    trained.provenance["blend"] = share
    save_checkpoint(trained, folder / CHECKPOINT)


def checkpoint_of(config: RunConfig, number: int, folder: Path) -> Path:
    """Where a round's policy is."""
    return folder / CHECKPOINT if _blends(config, number) else folder / TRAIN / CHECKPOINT


def _blends(config: RunConfig, number: int) -> bool:
    return number > 0 and config.dagger.blend < 1
