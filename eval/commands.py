"""The commands. Each parses its options, calls the parts, and prints where the results are."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.options import eval_config, parse, run_config, run_parser
from eval.compare.run import compare
from training.progress import Progress
from vla_policy.cli import COMMANDS

if TYPE_CHECKING:
    from configs.evaluation import EvalConfig
    from configs.run import RunConfig
    from eval.results import Results
    from training.data.episodes import Dataset

CHECKPOINT_HELP = "checkpoint folder, or the name of a policy that ships, such as `default`"
CRITERION_EPISODES = 200  # fewer make a success rate too vague to quote


def collect(arguments: list[str]) -> int:
    parser = run_parser("collect", COMMANDS["collect"] + ". One folder a task is written below --out.", "track")
    parser.add_argument("--out", type=str, default="data", help="folder for the datasets")
    parsed = parse(parser, arguments)
    for data in collect_all(run_config(parsed), Path(parsed.out)):
        print(
            f"{data.path}: {data.episodes} episodes, {data.steps} steps, {data.header['failures']} failed and left out"
        )
    return 0


def train(arguments: list[str]) -> int:
    parser = run_parser("train", COMMANDS["train"] + ". Reads one dataset a task below --data.", "track")
    parser.add_argument("--data", type=str, default="data", help="folder of `vla collect`")
    parser.add_argument("--out", type=str, default="runs/train", help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parsed = parse(parser, arguments)
    config = run_config(parsed)
    from training.data.episodes import open_dataset

    datasets = [open_dataset(Path(parsed.data) / task) for task in config.tasks]
    return _train(config, datasets, Path(parsed.out), resume=parsed.resume)


def evaluate(arguments: list[str]) -> int:
    parser = run_parser(
        "eval", COMMANDS["eval"] + ". CHECKPOINT is a folder, or the name of a policy that ships.", "track"
    )
    parser.add_argument("checkpoint", type=str, help=CHECKPOINT_HELP)
    parser.add_argument("--episodes", type=int, help="episodes a condition; short for --eval.episodes")
    parser.add_argument("--seed", type=int, help="first test seed; short for --eval.seed")
    parser.add_argument("--workers", type=int, help="parallel processes; short for --eval.workers")
    parser.add_argument(
        "--controls", type=tuple[str, ...], help="all, none or names with commas; short for --eval.controls"
    )
    parser.add_argument("--out", type=str, default="runs/eval", help="folder for results.json, table and report")
    parser.add_argument("--videos", type=int, default=2, help="films a task in the report")
    for argument in arguments:
        if re.match(r"--(policy|train|collect)\b", argument):
            raise ValueError(f"{argument}: has no part in judging, the checkpoint is as it was trained; leave it out")
    # Here --tasks are the tasks to evaluate; the run's own list says what was trained.
    parsed = parse(parser, [re.sub(r"^--tasks(?==|$)", "--eval.tasks", argument) for argument in arguments])
    from vla_policy.checkpoint import resolve_checkpoint

    changes: dict[str, Any] = {k: getattr(parsed, k) for k in ("episodes", "seed", "workers", "controls")}
    config = replace(eval_config(parsed), **{k: v for k, v in changes.items() if v is not None})
    path = resolve_checkpoint(parsed.checkpoint)
    results = _evaluate(path, config, Path(parsed.out))
    _report(results, path, config, Path(parsed.out), log=path.parent, videos=parsed.videos)
    return 0


def rollout(arguments: list[str]) -> int:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="vla rollout", description=COMMANDS["rollout"], exit_on_error=False)
    parser.add_argument("checkpoint", type=str, help=CHECKPOINT_HELP)
    parser.add_argument("--instruction", type=str, help='what to say, for example "follow the red ball"')
    parser.add_argument("--task", type=str, help="task; guessed from the instruction if left out")
    parser.add_argument("--seed", type=int, default=0, help="test seed of the scene")
    parser.add_argument("--video", type=str, default="rollout.mp4", help="MP4 file, or animated WebP by its ending")
    parsed = parse(parser, arguments)
    from configs.seeds import split_seed
    from envs.tabletop.reading import guess_task
    from eval.report.film import film, record
    from vla_policy.checkpoint import load_checkpoint, resolve_checkpoint

    checkpoint = load_checkpoint(resolve_checkpoint(parsed.checkpoint))
    tasks = checkpoint.purpose.tasks
    task = parsed.task or (guess_task(parsed.instruction, tasks) if parsed.instruction else tasks[0])
    seed = split_seed("test", parsed.seed)
    recording = record(checkpoint, task, seed, instruction=parsed.instruction)
    path = film(recording, Path(parsed.video))
    episode = recording.episode
    verdict = "success" if episode.success else f"failure: {episode.failure}"
    print(f"{task}: {episode.instruction!r}, target {episode.target}: {verdict}\n{path}")
    return 0


def ground(arguments: list[str]) -> int:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="vla ground", description=COMMANDS["ground"], exit_on_error=False)
    parser.add_argument("checkpoint", type=str, help=CHECKPOINT_HELP)
    parser.add_argument("--video", type=str, help="a video to look at, such as MP4; needs --instruction")
    parser.add_argument("--task", type=str, help="a task to act in instead; guessed from the instruction if left out")
    parser.add_argument("--instruction", type=str, help='what to look for, for example "follow the red ball"')
    parser.add_argument("--seed", type=int, default=0, help="test seed of the scene")
    parser.add_argument("--out", type=str, default="runs/ground", help="folder for tube.mp4 and tube.json")
    parsed = parse(parser, arguments)
    from configs.seeds import split_seed
    from envs.tabletop.reading import guess_task
    from envs.tabletop.scene import CONTROL_HZ
    from eval import ground as grounding
    from vla_policy.checkpoint import load_checkpoint, resolve_checkpoint

    if parsed.video and (parsed.task or not parsed.instruction):
        raise ValueError("--video needs --instruction and goes without --task; say what to look for in it")
    checkpoint = load_checkpoint(resolve_checkpoint(parsed.checkpoint))
    out, truth, words = Path(parsed.out), None, parsed.instruction
    _make_folder(out)
    if parsed.video:
        pictures = grounding.read_video(Path(parsed.video))
        observations = grounding.observations_of(checkpoint, pictures)
    else:
        tasks = checkpoint.purpose.tasks
        task = parsed.task or (guess_task(words, tasks) if words else tasks[0])
        watched = grounding.watch(checkpoint, task, split_seed("test", parsed.seed), words)
        pictures, observations, truth, words = (
            watched.pictures,
            watched.observations,
            watched.truth,
            watched.instruction,
        )
    with Progress("ground", len(observations), "moments") as progress:
        tube = grounding.ground(checkpoint, observations, words, lambda done, _: progress.update(done))
    film, described = grounding.write_grounding(out, tube, pictures, words, truth)
    interval = tube.interval
    said = (
        "no event"
        if tube.during
        else "boxes only: this policy was not trained to tell when (grounding.interval_weight)"
    )
    if interval is not None and tube.during:
        said = f"from {interval[0] / CONTROL_HZ:.1f} s to {(interval[1] + 1) / CONTROL_HZ:.1f} s"
    print(f"{words!r}: {said}\n{film}\n{described}")
    return 0


def tasks(arguments: list[str]) -> int:
    if arguments and arguments not in (["-h"], ["--help"]):
        raise ValueError(f"vla tasks takes no arguments, got {' '.join(arguments)}")
    if arguments:
        print(f"usage: vla tasks\n\n{COMMANDS['tasks']}")
        return 0
    from envs.task import TASK_IDS, make_task

    for task, (env_id, _) in TASK_IDS.items():
        env = make_task(task, cameras=("front",))
        env.reset(seed=0)
        print(f'{task:<17}{env_id:<24}"{env.instruction}"\n{"":<17}success: {type(env).criterion}')
        env.close()
    return 0


def demo(arguments: list[str]) -> int:
    parser = run_parser("demo", COMMANDS["demo"], "track")
    parser.add_argument("--out", type=str, help="folder of the run; runs/NAME if left out")
    parser.add_argument("--videos", type=int, default=3, help="films a task in the report")
    parsed = parse(parser, arguments)
    from training.run_folder import CHECKPOINT, STATE, check_same, describe, is_finished
    from training.state import has_state

    config = run_config(parsed)
    out = Path(parsed.out or f"runs/{Path(str(parsed.config)).stem}")
    folder = out / "train"
    checkpoint = folder / CHECKPOINT
    started = time.monotonic()
    datasets = collect_all(config, out / "data")
    collected = time.monotonic()
    if is_finished(folder):  # by an earlier call, which need not have been for the same policy
        check_same(folder, describe(config.policy, config.train, datasets))
    elif code := _train(config, datasets, folder, resume=has_state(folder / STATE)):
        return code
    trained = time.monotonic()
    results = _evaluate(checkpoint, config.eval, out / "eval")
    _report(results, checkpoint, config.eval, out / "eval", log=folder, videos=parsed.videos)
    ended = time.monotonic()
    times = {
        "collect": round(collected - started, 1),
        "train": round(trained - collected, 1),
        "evaluate": round(ended - trained, 1),
        "total": round(ended - started, 1),
    }
    (out / "times.json").write_text(json.dumps(times, indent=2) + "\n")
    print(", ".join(f"{name} {seconds:.0f} s" for name, seconds in times.items()))
    return 0


def bench(arguments: list[str]) -> int:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="vla bench", description=COMMANDS["bench"], exit_on_error=False)
    parser.add_argument("--seconds", type=float, default=20.0, help="time for each ratio")
    parser.add_argument("--episodes", type=int, default=200, help="test seeds for each task's expert")
    parser.add_argument("--out", type=str, help="JSON file for the figures")
    parsed = parse(parser, arguments)
    from training.bench import pipeline_ratio
    from training.collect_bench import collection_ratio, expert_success

    figures = {
        "collection": collection_ratio(parsed.seconds),
        "pipeline": pipeline_ratio(parsed.seconds),
        "experts": expert_success(parsed.episodes),
    }
    print(json.dumps(figures, indent=2))
    if parsed.out:
        Path(parsed.out).write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def collect_all(config: RunConfig, folder: Path) -> list[Dataset]:
    from training.collect import collect as collect_task

    datasets = []
    for task in config.tasks:
        with Progress(f"collect {task}", config.collect.episodes, "episodes") as progress:

            def show(episodes: int, failures: int, rate: float, progress: Progress = progress) -> None:
                progress.update(episodes, f"{rate:.0f} frames/s, {failures} failed and left out")

            datasets.append(collect_task(task, config.collect, folder / task, on_progress=show))
    return datasets


def _train(config: RunConfig, datasets: list[Dataset], out: Path, *, resume: bool) -> int:
    from training.bc import train as train_policy

    with Progress("train", config.train.steps, "steps") as progress:

        def show(step: int, _steps: int, row: dict[str, float]) -> None:
            words = f"loss {row['loss']:.3f} action {row['action']:.3f} iou {row['iou']:.2f}" if row else ""
            progress.update(step, words)

        result = train_policy(config.policy, config.train, datasets, out, resume=resume, on_progress=show)
    if not result.main:  # one of several that torchrun started
        return 130 if result.interrupted else 0
    print(f"{result.checkpoint}: step {result.step} of {config.train.steps}, {result.samples_per_second:.0f} samples/s")
    if result.interrupted:
        print(f"interrupted; go on with --resume (state in {out / 'state'})")
        return 130
    shutil.rmtree(out / "state")
    return 0


def _evaluate(path: Path, config: EvalConfig, out: Path) -> Results:
    from eval.evaluate import evaluate as evaluate_policy
    from eval.results import save_results
    from vla_policy.checkpoint import load_checkpoint

    def save(results: Results) -> None:
        save_results(results, out / "results.json")

    load_checkpoint(path)  # what is wrong with it comes to light before a folder is made
    _make_folder(out)
    with ExitStack() as stack:
        progress: Progress | None = None

        def show(task: str, condition: str, done: int, total: int) -> None:
            nonlocal progress
            progress = progress or stack.enter_context(Progress("evaluate", total, "episodes"))
            progress.update(done, f"{task} {condition}")

        results = evaluate_policy(path, config, on_progress=show, on_condition=save)
    save(results)
    return results


def _report(results: Results, path: Path, config: EvalConfig, out: Path, *, log: Path, videos: int) -> None:
    from eval.report.answers import summary
    from eval.report.page import markdown_table, write_report
    from eval.results import write_whole
    from training.bc import read_log

    if videos:
        print("filming and writing the report", flush=True)
    films = _films(results, path, config, out, videos)
    table = markdown_table(results)
    write_whole(out / "table.md", table + "\n")
    report = write_report(results, out, films, read_log(log) or None)
    print(table)
    for name, task in results.tasks.items():
        print(summary(name, task))
    if config.episodes < CRITERION_EPISODES:
        print(f"{config.episodes} episodes a condition are too few to quote; take {CRITERION_EPISODES} or more")
    print(f"{out / 'results.json'}\n{report}")


def _films(results: Results, path: Path, config: EvalConfig, out: Path, count: int) -> dict[str, Path]:
    """Films of the first test seeds, and of the first failure among the others, so that the report hides none."""
    if not count:
        return {}
    from eval.report.film import film, record
    from eval.results import POLICY
    from eval.rollout import GROUP
    from vla_policy.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    films = {}
    for task, found in results.tasks.items():
        episodes = found.conditions[POLICY].results
        chosen = list(range(min(count, len(episodes))))
        failed = [i for i, e in enumerate(episodes) if not e.success and e.valid and i not in chosen]
        for i in chosen + failed[:1]:
            seed = episodes[i].seed
            recording = record(checkpoint, task, seed, controller=config.runner, row=i % GROUP)
            key = f"{task}/{POLICY}/{seed}"
            films[key] = film(recording, out / "videos" / f"{task}-{seed}.mp4")
    return films


def _make_folder(path: Path) -> None:
    """Make the folder for results and try to write to it, before the work that would be lost.

    Raises:
        ValueError: it cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = "it is a file" if path.is_file() else error.strerror
        raise ValueError(f"--out {path}: no folder that can be written to ({reason}); choose another one") from None


RUN: dict[str, Callable[[list[str]], int]] = {
    "demo": demo,
    "collect": collect,
    "train": train,
    "eval": evaluate,
    "compare": compare,
    "rollout": rollout,
    "ground": ground,
    "tasks": tasks,
    "bench": bench,
}
