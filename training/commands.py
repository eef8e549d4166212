"""`vla collect`, `vla train` and `vla import`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.options import parse, run_config, run_parser
from configs.run import RunConfig
from envs.task import expand_suites, find_task, find_tasks, use_task_modules
from training.data.episodes import Dataset, open_all
from training.progress import Progress, brief

LARGEST_PICTURE = 4096  # pixels a side


def collect(arguments: list[str]) -> int:
    """Demonstrations of every task of a run."""
    more = "One folder per task is written below --out"
    parser = run_parser("collect", "track", more, hidden=("policy", "train", "eval", "dagger", "rl", "finetune"))
    parser.add_argument("--out", type=str, default="data", help="folder for the datasets")
    parsed = parse(parser, arguments)
    use_task_modules(filter(None, [parsed.task_module]))
    config = run_config(parsed)
    check_collectable(config)
    for data in collect_all(config, Path(parsed.out)):
        failures = data.header.get("failures", 0)
        print(f"{data.path}: {data.episodes} episodes, {data.steps} steps, {failures} failed and left out")
    return 0


def train(arguments: list[str]) -> int:
    """A policy from the demonstrations of every task of a run."""
    more = "Reads one dataset per task below --data"
    parser = run_parser("train", "track", more, hidden=("collect", "eval", "dagger", "rl", "finetune"))
    words = "folder of `vla collect`, or of one dataset; several with commas, such as a round's of `vla dagger`, too"
    parser.add_argument("--data", type=tuple[str, ...], default=("data",), help=words)
    parser.add_argument("--out", type=str, default="runs/train", help="folder of the run")
    more = "run, checkpoint or policy that ships to begin with; its parts that do not fit --policy begin anew"
    parser.add_argument("--policy-from", type=str, help=more)
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    words = "settings with which the resumed run may go on otherwise, such as train.learning_rate"
    parser.add_argument("--change", type=tuple[str, ...], default=(), help=words)
    parsed = parse(parser, arguments)
    use_task_modules(filter(None, [parsed.task_module]))
    from vla_policy.checkpoint import resolve_checkpoint

    config, folders = run_config(parsed), [Path(name) for name in parsed.data]
    datasets = open_all(folders, expand_suites(config.tasks))  # one may be of a task that nobody registered
    start = resolve_checkpoint(parsed.policy_from) if parsed.policy_from else None
    return train_all(config, datasets, Path(parsed.out), resume=parsed.resume, change=parsed.change, start=start)


def import_(arguments: list[str]) -> int:
    """A checkpoint of ours from a published one of TubeDETR."""
    hidden = ("collect", "train", "eval", "dagger", "rl", "finetune", "tasks")
    parser = run_parser("import", "tubedetr", hidden=hidden)
    parser.add_argument("file", type=str, help="published checkpoint of TubeDETR, .pth or .safetensors")
    parser.add_argument("--out", type=str, default="runs/tubedetr", help="folder for the checkpoint")
    parser.add_argument("--size", type=int, default=224, help="pixels a side of the pictures that it will get")
    parser.add_argument("--control-hz", type=float, default=5.0, help="frames per second that it was trained at")
    parser.add_argument("--partial", action="store_true", help="take what fits, and leave the rest as it begins")
    parsed = parse(parser, arguments)
    if not 1 <= parsed.size <= LARGEST_PICTURE or not parsed.control_hz > 0:
        raise ValueError(
            f"--size {parsed.size} must lie in 1 to {LARGEST_PICTURE}, --control-hz {parsed.control_hz} be above 0"
        )
    from training.lock import hold_file
    from vla_policy.checkpoint import save_checkpoint
    from vla_policy.published import import_published, some_of

    out = Path(parsed.out)
    with hold_file(out):
        if out.exists():
            raise ValueError(f"--out {out}: is there already; choose another place, or remove it")
        checkpoint, taken = import_published(
            Path(parsed.file),
            run_config(parsed).policy,
            size=parsed.size,
            control_hz=parsed.control_hz,
            partial=parsed.partial,
        )
        save_checkpoint(checkpoint, out)
    print(f"{out}: {taken.count} weights taken")
    for words, names in (("not in the file", taken.missing), ("no place for", taken.unknown)):
        if names:
            print(f"{words}: {some_of(names)}")
    return 0


def check_collectable(config: RunConfig) -> None:
    """Refuse a run whose demonstrations could not be made, before hours are spent on those of another task.

    Raises:
        ValueError: a task is unknown, or has no such camera or no expert.
    """
    from training.collect import expert_of

    for name in find_tasks(config.tasks):
        spec = find_task(name)
        expert_of(spec, config.collect)
        for camera in config.collect.cameras:
            if camera not in spec.cameras:
                raise ValueError(f"collect.cameras has {camera!r}, task {name!r} offers {', '.join(spec.cameras)}")


def check_demonstrable(config: RunConfig) -> None:
    """Refuse a run whose demonstrations could not be made, or could not teach its policy.

    Raises:
        ValueError: as `check_collectable`, or a camera is not recorded, or labels do not look ahead far enough.
    """
    check_collectable(config)
    missing = [name for name in config.policy.cameras if name not in config.collect.cameras]
    if missing:
        raise ValueError(f"policy.cameras has {missing[0]!r}, which collect.cameras does not record")
    from training.collect import expert_of

    chunk, ahead = config.policy.head.chunk, config.collect.plan_steps
    for name in find_tasks(config.tasks):
        if hasattr(expert_of(find_task(name), config.collect), "plan") and chunk > ahead:
            raise ValueError(
                f"policy.head.chunk {chunk} exceeds the {ahead} steps that a label of task {name!r} looks ahead; "
                f"choose {ahead} or fewer, or raise collect.plan_steps"
            )


def collect_all(config: RunConfig, folder: Path) -> list[Dataset]:
    """The datasets of a run's tasks below a folder; those that are there are taken as they are."""
    from training.collect import collect_tasks

    tasks = find_tasks(config.tasks)
    label = f"collect {tasks[0] if len(tasks) == 1 else f'{len(tasks)} tasks'}"
    with Progress(label, config.collect.episodes * len(tasks), "episodes") as progress:

        def show(episodes: int, failures: int, rate: float) -> None:
            progress.update(episodes, f"{brief(rate)} frames/s, {failures} failed and left out")

        return collect_tasks(tasks, config.collect, {task: folder / task for task in tasks}, on_progress=show)


def train_all(
    config: RunConfig,
    datasets: list[Dataset],
    out: Path,
    *,
    resume: bool,
    change: Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
    start: Path | None = None,
    keep_state: bool = False,
) -> int:
    """Train on datasets, with progress; the exit code.

    Args:
        change, weights, start: see `training.bc.train`.
        keep_state: leave the last state where it is, so that another training can go on from it.
    """
    from training.bc import train as train_policy

    with Progress("train", config.train.steps, "steps") as progress:

        def show(step: int, _steps: int, row: dict[str, float]) -> None:
            words = f"loss {row['loss']:.3f} action {row['action']:.3f} iou {row['iou']:.2f}" if row else ""
            progress.update(step, words)

        result = train_policy(
            config.policy,
            config.train,
            datasets,
            out,
            weights=weights,
            start=start,
            resume=resume,
            change=change,
            on_progress=show,
        )
    if not result.main:  # one of several that torchrun started
        return 130 if result.interrupted else 0
    speed = f"{brief(result.samples_per_second)} samples/s"
    print(f"{result.checkpoint}: step {result.step} of {config.train.steps}, {speed}")
    if result.interrupted:
        print(f"interrupted; go on with --resume (state in {out / 'state'})")
        return 130
    if not keep_state:
        shutil.rmtree(out / "state")
    return 0
