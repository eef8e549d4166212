"""`vla eval`, `vla rollout`, `vla ground`, `vla demo` and `vla bench`."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.options import eval_config, parse, plain_parser, run_config, run_parser
from envs.task import find_tasks, use_task_modules
from training.commands import check_demonstrable, collect_all, train_all
from training.lock import hold_file, hold_folder
from training.progress import Progress

if TYPE_CHECKING:
    from configs.evaluation import EvalConfig
    from configs.run import RunConfig
    from eval.results import Results
    from vla_policy.checkpoint import Checkpoint

CHECKPOINT_HELP = "checkpoint folder, or the name of a policy that ships, such as `default`"
CRITERION_EPISODES = 200  # fewer make a success rate too vague to quote


def evaluate(arguments: list[str]) -> int:
    more = "CHECKPOINT is a folder, or the name of a policy that ships"
    parser = run_parser("eval", "track", more, hidden=("policy", "train", "collect"))
    parser.add_argument("checkpoint", type=str, help=CHECKPOINT_HELP)
    parser.add_argument("--episodes", type=int, help="episodes a condition; short for --eval.episodes")
    parser.add_argument("--seed", type=int, help="first test seed; short for --eval.seed")
    parser.add_argument("--workers", type=int, help="parallel processes; short for --eval.workers")
    parser.add_argument(
        "--controls", type=tuple[str, ...], help="all, none or names with commas; short for --eval.controls"
    )
    parser.add_argument("--out", type=str, default="runs/eval", help="folder for results.json, table and report")
    parser.add_argument("--videos", type=int, default=2, help="videos per task in the report")
    for argument in arguments:
        if re.match(r"--(policy|train|collect)\b", argument):
            raise ValueError(f"{argument}: has no part in judging, the checkpoint is as it was trained; leave it out")
    # Here --tasks are the tasks to evaluate; the run's own list says what was trained.
    parsed = parse(parser, [re.sub(r"^--tasks(?==|$)", "--eval.tasks", argument) for argument in arguments])
    use_task_modules(filter(None, [parsed.task_module]))
    from vla_policy.checkpoint import resolve_checkpoint

    changes: dict[str, Any] = {k: getattr(parsed, k) for k in ("episodes", "seed", "workers", "controls")}
    config = replace(eval_config(parsed), **{k: v for k, v in changes.items() if v is not None})
    check_evaluation(config)
    path = resolve_checkpoint(parsed.checkpoint)
    _judge(path, config, Path(parsed.out), log=path.parent, videos=parsed.videos)
    return 0


def rollout(arguments: list[str]) -> int:
    parser = plain_parser("rollout")
    parser.add_argument("checkpoint", type=str, help=CHECKPOINT_HELP)
    parser.add_argument("--instruction", type=str, help='what to say, for example "follow the red ball"')
    parser.add_argument("--task", type=str, help="task; guessed from the instruction if left out")
    parser.add_argument("--seed", type=int, default=0, help="test seed of the scene")
    parser.add_argument("--video", type=str, default="rollout.mp4", help="MP4 file, or animated WebP by its ending")
    parsed = parse(parser, arguments)
    use_task_modules(filter(None, [parsed.task_module]))
    from configs.seeds import split_seed
    from envs.task import guess_task
    from eval.report.episode_video import record, write_video
    from vla_policy.checkpoint import load_checkpoint, resolve_checkpoint

    checkpoint = load_checkpoint(resolve_checkpoint(parsed.checkpoint))
    _say_unread(checkpoint, parsed.instruction)
    tasks = checkpoint.purpose.tasks
    task = parsed.task or (guess_task(parsed.instruction, tasks) if parsed.instruction else tasks[0])
    seed = split_seed("test", parsed.seed)
    with hold_file(Path(parsed.video)):
        recording = record(checkpoint, task, seed, instruction=parsed.instruction)
        path = write_video(recording, Path(parsed.video))
    episode = recording.episode
    verdict = "success" if episode.success else f"failure: {episode.failure}"
    print(f"{task}: {episode.instruction!r}, target {episode.target}: {verdict}\n{path}")
    return 0


def ground(arguments: list[str]) -> int:
    parser = plain_parser("ground")
    parser.add_argument("checkpoint", type=str, help=CHECKPOINT_HELP)
    parser.add_argument("--video", type=str, help="a video to look at, such as MP4; needs --instruction")
    parser.add_argument("--task", type=str, help="a task to act in instead; guessed from the instruction if left out")
    parser.add_argument("--instruction", type=str, help='what to look for, for example "follow the red ball"')
    parser.add_argument("--seed", type=int, default=0, help="test seed of the scene")
    parser.add_argument("--out", type=str, default="runs/ground", help="folder for tube.mp4 and tube.json")
    parsed = parse(parser, arguments)
    use_task_modules(filter(None, [parsed.task_module]))
    from configs.seeds import split_seed
    from envs.task import guess_task
    from eval import ground as grounding
    from vla_policy.checkpoint import load_checkpoint, resolve_checkpoint

    words = parsed.instruction
    if parsed.video and (parsed.task or not words):
        raise ValueError("--video needs --instruction and goes without --task; say what to look for in it")
    checkpoint = load_checkpoint(resolve_checkpoint(parsed.checkpoint))
    _say_unread(checkpoint, words)
    out = Path(parsed.out)
    _make_folder(out)
    with hold_folder(out), ExitStack() as stack:
        progress: Progress | None = None

        def show(done: int, total: int) -> None:
            nonlocal progress
            progress = progress or stack.enter_context(Progress("ground", total, "steps"))
            progress.update(done)

        if parsed.video:
            pictures = grounding.read_video(Path(parsed.video), grounding.control_rate_of(checkpoint))
            found = grounding.ground_video(checkpoint, pictures, words, show)
        else:
            tasks = checkpoint.purpose.tasks
            task = parsed.task or (guess_task(words, tasks) if words else tasks[0])
            found = grounding.ground_episode(checkpoint, task, split_seed("test", parsed.seed), words, show)
        video, described = grounding.write_grounding(out, found)
    interval, rate = found.tube.interval, found.control_hz
    said = "no event"
    if not found.tube.during:
        said = "boxes only: this policy was not trained to tell when (grounding.interval_weight)"
    elif interval is not None:
        said = f"from {interval[0] / rate:.1f} s to {(interval[1] + 1) / rate:.1f} s"
    print(f"{found.instruction!r}: {said}\n{video}\n{described}")
    return 0


def demo(arguments: list[str]) -> int:
    parser = run_parser("demo", "track")
    parser.add_argument("--out", type=str, help="folder of the run; runs/NAME if left out")
    parser.add_argument("--videos", type=int, default=3, help="videos per task in the report")
    parsed = parse(parser, arguments)
    use_task_modules(filter(None, [parsed.task_module]))
    config = run_config(parsed)
    check_demonstrable(config)
    check_evaluation(config.eval)
    out = Path(parsed.out or f"runs/{Path(str(parsed.config)).stem}")
    with hold_folder(out):
        return _demo(config, out, parsed.videos)


def _demo(config: RunConfig, out: Path, videos: int) -> int:
    from training.run_folder import CHECKPOINT, STATE, check_same, describe, is_finished
    from training.state import has_state

    folder = out / "train"
    checkpoint = folder / CHECKPOINT
    started = time.monotonic()
    datasets = collect_all(config, out / "data")
    collected = time.monotonic()
    if is_finished(folder):  # by an earlier call, which need not have been for the same policy
        check_same(folder, describe(config.policy, config.train, datasets))
    elif code := train_all(config, datasets, folder, resume=has_state(folder / STATE)):
        return code
    trained = time.monotonic()
    _judge(checkpoint, config.eval, out / "eval", log=folder, videos=videos)
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
    parser = plain_parser("bench")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for each ratio")
    parser.add_argument("--episodes", type=int, default=200, help="test seeds for each task's expert")
    parser.add_argument("--out", type=str, help="JSON file for the figures")
    parser.add_argument("--tasks", type=tuple[str, ...], help="tasks or suites whose experts alone are measured")
    parsed = parse(parser, arguments)
    use_task_modules(filter(None, [parsed.task_module]))
    from eval.results import write_whole
    from training.bench import pipeline_ratio
    from training.collect_bench import collection_ratio, expert_success

    figures: dict[str, Any] = {}
    with hold_file(Path(parsed.out)) if parsed.out else nullcontext():
        if not parsed.tasks:
            figures["collection"] = collection_ratio(parsed.seconds)
            figures["pipeline"] = pipeline_ratio(parsed.seconds)
        figures["experts"] = expert_success(parsed.episodes, find_tasks(parsed.tasks) if parsed.tasks else None)
        print(json.dumps(figures, indent=2))
        if parsed.out:
            write_whole(Path(parsed.out), json.dumps(figures, indent=2) + "\n")
    return 0


def _say_unread(checkpoint: Checkpoint, instruction: str | None) -> None:
    """Say what the policy does not know of a user's words.

    Raises:
        ValueError: it cannot read them.
    """
    from eval.words import check_instruction

    if instruction is not None:
        notice = check_instruction(checkpoint.tokenizer, instruction)
        if notice:
            print(f"vla: {notice}", file=sys.stderr)


def check_evaluation(config: EvalConfig) -> None:
    """Refuse an evaluation of what nobody knows, before the work that comes ahead of it.

    Raises:
        ValueError: a control or a task is unknown; the message names the nearest one.
    """
    from eval.controls import choose_controls

    choose_controls(config.controls)
    find_tasks(config.tasks)


def _judge(path: Path, config: EvalConfig, out: Path, *, log: Path, videos: int) -> None:
    """Evaluate a checkpoint into a folder, and report."""
    from vla_policy.checkpoint import load_checkpoint

    load_checkpoint(path)  # what is wrong with it comes to light before a folder is made
    _make_folder(out)
    with hold_folder(out):
        results = _evaluate(path, config, out)
        _report(results, path, config, out, log=log, videos=videos)


def _evaluate(path: Path, config: EvalConfig, out: Path) -> Results:
    from eval.evaluate import evaluate as evaluate_policy
    from eval.results import save_results

    def save(results: Results) -> None:
        save_results(results, out / "results.json")

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
    from training.log import read_log

    if videos:
        print("writing videos and report", flush=True)
    recorded = _record(results, path, config, out, videos)
    table = markdown_table(results)
    write_whole(out / "table.md", table + "\n")
    report = write_report(results, out, recorded, read_log(log) or None)
    print(table)
    for name, task in results.tasks.items():
        print(summary(name, task))
        for control, why in results.settings.get("not_offered", {}).get(name, {}).items():
            print(f"{name}: no {control}, {why}")
        for kind, words in results.settings.get("unread_words", {}).get(name, {}).items():
            print(f"{name}: words of its instructions that the policy reads as {kind}: {', '.join(words)}")
    if config.episodes < CRITERION_EPISODES:
        print(f"{config.episodes} episodes a condition are too few to quote; take {CRITERION_EPISODES} or more")
    print(f"{out / 'results.json'}\n{report}")


def _record(results: Results, path: Path, config: EvalConfig, out: Path, count: int) -> dict[str, Path]:
    """Videos of the first test seeds, and of the first failure among the others, so that the report hides none."""
    if not count:
        return {}
    from eval.acting import GROUP
    from eval.report.episode_video import record, write_video
    from eval.results import POLICY
    from vla_policy.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    videos = {}
    for task, found in results.tasks.items():
        episodes = found.conditions[POLICY].results
        chosen = list(range(min(count, len(episodes))))
        failed = [i for i, e in enumerate(episodes) if not e.success and e.valid and i not in chosen]
        for i in chosen + failed[:1]:
            seed = episodes[i].seed
            recording = record(checkpoint, task, seed, runner=config.runner, row=i % GROUP)
            key = f"{task}/{POLICY}/{seed}"
            videos[key] = write_video(recording, out / "videos" / f"{task}-{seed}.mp4")
    return videos


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
