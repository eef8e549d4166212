"""`vla dagger`: in rounds, the policy acts, the expert labels what it visits, training goes on, and all is judged.

OUT/data/TASK               demonstrations, unless --data names some
OUT/rounds/00/train         cloning of these, unless --policy-from names a policy
OUT/rounds/NN/data/TASK     what a round labelled: ordinary datasets
OUT/rounds/NN/train         an ordinary run, which went on from the round before
OUT/rounds/NN/checkpoint    the mean of what it began and ended with, if `dagger.blend` is below 1
OUT/rounds/NN/eval          results.json on validation seeds
OUT/rounds.json, rounds.png success against labels
OUT/checkpoint              the newest policy
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.dagger import FIRST_SEED
from configs.options import parse, run_config, run_parser
from envs.task import expand_suites, find_task, use_task_modules
from training.commands import check_collectable, check_demonstrable, collect_all
from training.data.episodes import Dataset, open_all
from training.lock import hold_folder
from training.progress import Progress

if TYPE_CHECKING:
    from configs.run import RunConfig
    from eval.rounds import Rounds, Success

PICTURE = "rounds.png"
JUDGED_ON = "validation"  # split
_OF_A_RUN = ("checkpoint", "config.json", "state")  # what other commands leave in their --out


def dagger(arguments: list[str]) -> int:
    parser = run_parser("dagger", "track", hidden=("rl", "finetune"))
    words = "demonstrations, as of `vla train`; collected below --out if left out"
    parser.add_argument("--data", type=tuple[str, ...], default=(), help=words)
    parser.add_argument("--policy-from", type=str, help="run or checkpoint to begin with; cloned first if left out")
    more = "rounds.json of a call with --dagger.beta 1, or results.json of `vla eval`, to be drawn beside the rounds"
    parser.add_argument("--cloning", type=tuple[str, ...], default=(), help=more)
    parser.add_argument("--out", type=str, default="runs/dagger", help="folder of the rounds")
    parser.add_argument("--resume", action="store_true", help="go on with the rounds in --out")
    parsed = parse(parser, arguments)
    use_task_modules(filter(None, [parsed.task_module]))
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("vla dagger runs as one process; leave torchrun out")
    from eval.rounds import FILE, cloning_points, rounds_table

    config, out, start = run_config(parsed), Path(parsed.out), None
    cloning = [Path(name) for name in parsed.cloning]
    cloning_points(cloning)  # what is wrong with it comes to light before the work
    if parsed.policy_from:
        start = _start(parsed.policy_from, arguments)
        config = _with_policy_of(start, config, collects=not parsed.data)
    if (out / FILE).exists() and not parsed.resume:
        raise ValueError(f"{out}: holds rounds already; add --resume to go on with them, or choose another --out")
    if not (out / FILE).exists() and (found := next((p for p in _OF_A_RUN if (out / p).exists()), "")):
        raise ValueError(f"{out}: holds {found} of something else, which would be lost; choose another --out")
    with hold_folder(out):
        base = _demonstrations(config, parsed.data, out)
        rounds = _open(config, base, start, out, resume=parsed.resume)
        if code := _run(config, base, rounds, start, out, cloning):
            return code
    print(rounds_table(rounds.rounds))
    for name in (FILE, PICTURE, "checkpoint"):
        if (out / name).exists():
            print(out / name)
    return 0


def _start(name: str, arguments: Sequence[str]) -> Path:
    """The checkpoint to begin with.

    Raises:
        ValueError: there is none, or its settings were given as well.
    """
    from vla_policy.checkpoint import load_checkpoint, resolve_checkpoint

    for argument in arguments:
        if re.match(r"--policy\.", argument):
            raise ValueError(f"{argument}: the policy of --policy-from is as it was trained; leave it out")
    path = resolve_checkpoint(name)
    load_checkpoint(path)
    return path


def _with_policy_of(path: Path, config: RunConfig, *, collects: bool) -> RunConfig:
    """The configuration with the policy's own settings.

    Raises:
        ValueError: demonstrations are to be collected that it could not go on with.
    """
    from vla_policy.checkpoint import load_checkpoint

    policy = load_checkpoint(path).policy
    if collects and config.collect.size != policy.shapes.size:
        seen = policy.shapes.size
        raise ValueError(f"collect.size {config.collect.size} must be {seen}, which the policy of {path} sees")
    return replace(config, policy=policy.config)


def _demonstrations(config: RunConfig, data: Sequence[str], out: Path) -> list[Dataset]:
    """The demonstrations of each task, which are there or are collected.

    Raises:
        ValueError: there is no expert for them, or they are not of the task that is known under their name.
    """
    from configs.interface import check_same_robot

    if not data:
        if config.collect.split == JUDGED_ON:
            raise ValueError(f"collect.split {JUDGED_ON!r}: rounds are judged on these scenes; collect 'train'")
        check_demonstrable(config)
        return collect_all(config, out / "data")
    datasets = open_all([Path(name) for name in data], expand_suites(config.tasks))
    for each in datasets:
        collection = each.header.get("collection")
        if isinstance(collection, dict) and collection.get("split") == JUDGED_ON:
            raise ValueError(f"{each.path}: of the split {JUDGED_ON!r}, on which rounds are judged; give others")
        task = str(each.header["task"])
        check_collectable(
            replace(config, tasks=(task,), collect=replace(config.collect, cameras=each.interface.cameras))
        )
        check_same_robot(find_task(task).interface, each.interface, (f"task {task!r}", str(each.path)))
    return datasets


def _open(config: RunConfig, base: Sequence[Dataset], start: Path | None, out: Path, *, resume: bool) -> Rounds:
    """The rounds that are there, none at first.

    Raises:
        ValueError: there are none to resume, they were made with other settings, or the policy does not fit the data.
    """
    from eval.rounds import FILE, Rounds, first_difference, load_rounds, save_rounds
    from training.dagger import check_start, first_seed
    from training.provenance import fingerprint
    from training.start import weights_print

    settings: dict[str, Any] = {
        "tasks": [each.header["task"] for each in base],
        "data": [fingerprint(each) for each in base],
        "start": "" if start is None else weights_print(start),
        "policy": asdict(config.policy),
        "train": asdict(config.train),
        # More rounds than at first may be asked for; rounds from before there was `blend` are not blended.
        "dagger": {
            name: value
            for name, value in asdict(config.dagger).items()
            if name != "rounds" and (name, value) != ("blend", 1.0)
        },
        "runner": asdict(config.eval.runner),
        # Other scenes or rules would make rounds that cannot be held against each other.
        "judged": {name: value for name in ("seed", "variation") if (value := getattr(config.eval, name))},
    }
    if (out / FILE).exists():
        rounds = load_rounds(out / FILE)
        if found := first_difference(rounds.settings, settings):
            raise ValueError(f"{out}: {found}; give the same settings and data again, or choose another --out")
        return rounds
    if resume:
        raise ValueError(f"{out}: no rounds to resume; leave --resume out")
    if start is not None:
        check_start(start, config, base)
    rounds = Rounds(settings=settings, first_seed=first_seed(config, base, start))
    save_rounds(rounds, out)
    return rounds


def _run(
    config: RunConfig, base: list[Dataset], rounds: Rounds, start: Path | None, out: Path, cloning: Sequence[Path]
) -> int:
    """All rounds that are not there yet; the exit code."""
    from eval.rounds import RoundResult, save_rounds
    from training.dagger import TRAIN, blend_round, checkpoint_of, collect_round, train_round
    from training.run_folder import STATE
    from vla_policy.checkpoint import given_name, load_checkpoint, save_checkpoint

    datasets, policy = list(base), start
    first = config.collect.seed + FIRST_SEED if rounds.first_seed is None else rounds.first_seed
    for number in range(config.dagger.rounds + 1):
        folder, weights = out / "rounds" / f"{number:02d}", None
        if number:
            assert policy is not None
            before = rounds.rounds[number - 1].tasks
            judged = {task: (found.successes, found.episodes) for task, found in before.items()}
            names = list(dict.fromkeys(str(each.header["task"]) for each in base))
            episodes, weights = config.dagger.shared_out(judged, names), config.dagger.weights(judged, names)
            datasets += collect_round(config, base, number, policy, folder, episodes, first + number)
        trained = checkpoint_of(config, number, folder) if number or start is None else start
        if number == len(rounds.rounds):
            if trained != start and (code := train_round(config, datasets, number, policy, folder, weights)):
                return code
            if trained != start:
                blend_round(config, number, policy, folder)
            success, tasks = _judge(config, trained, base, folder)
            row = RoundResult(
                number=number,
                labels=sum(each.steps for each in datasets),
                share=config.dagger.share(number) if number else 1.0,
                checkpoint=given_name(trained) if trained == start else str(trained.relative_to(out)),
                success=success,
                tasks=tasks,
            )
            rounds.rounds.append(row)
            save_checkpoint(load_checkpoint(trained), out / "checkpoint")
            save_rounds(rounds, out)
            _draw(rounds, out, cloning)
            if number:  # the next one goes on from this state
                shutil.rmtree(out / "rounds" / f"{number - 1:02d}" / TRAIN / STATE, ignore_errors=True)
        policy = trained
    _draw(rounds, out, cloning)  # with what else was named this time
    return 0


def _judge(
    config: RunConfig, checkpoint: Path, base: Sequence[Dataset], folder: Path
) -> tuple[Success | None, dict[str, Success]]:
    """A round's success on validation seeds: over all tasks, None if it is not to be judged, and by task."""
    from eval.evaluate import evaluate
    from eval.results import save_results
    from eval.rounds import successes_in

    if not config.dagger.validation:
        return None, {}
    tasks = tuple(dict.fromkeys(str(each.header["task"]) for each in base))
    settings = replace(config.eval, tasks=tasks, episodes=config.dagger.validation, controls=("none",))
    with ExitStack() as stack:
        progress: Progress | None = None

        def show(task: str, _condition: str, done: int, total: int) -> None:
            nonlocal progress
            progress = progress or stack.enter_context(Progress("validate", total, "episodes"))
            progress.update(done, task)

        results = evaluate(checkpoint, settings, split=JUDGED_ON, on_progress=show)
    save_results(results, folder / "eval" / "results.json")
    return successes_in(results)


def _draw(rounds: Rounds, out: Path, cloning: Sequence[Path]) -> None:
    from eval.report.rounds_plot import write_rounds_plot
    from eval.rounds import cloning_points

    judged = [(each.labels, each.success) for each in rounds.rounds if each.success is not None]
    curves = {"DAgger": judged, "cloning": cloning_points(cloning)}
    if judged:
        write_rounds_plot(out / PICTURE, {name: points for name, points in curves.items() if points})
