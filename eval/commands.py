"""`vla eval`, `vla rollout`, `vla ground`, `vla demo` and `vla bench`."""

from __future__ import annotations

import json
import re
import sys
import time
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from configs.evaluation import TubeRules
from configs.options import describe_option, eval_config, parse, plain_parser, run_config, run_parser
from envs.task import find_tasks, use_task_modules
from eval.judge import check_evaluation, judge, make_folder
from training.commands import check_demonstrable, collect_all, train_all
from training.lock import hold_file, hold_folder
from training.progress import Progress

if TYPE_CHECKING:
    from configs.run import RunConfig
    from vla_policy.checkpoint import Checkpoint

CHECKPOINT_HELP = "checkpoint folder, a policy that ships, such as `default`, or hf://owner/name[@revision]"


def evaluate(arguments: list[str]) -> int:
    more = "CHECKPOINT is a folder, or the name of a policy that ships"
    parser = run_parser("eval", "track", more, hidden=("policy", "train", "collect", "dagger", "rl", "finetune"))
    parser.add_argument("checkpoint", type=str, help=CHECKPOINT_HELP)
    parser.add_argument("--episodes", type=int, help="episodes a condition; short for --eval.episodes")
    parser.add_argument("--seed", type=int, help="first test seed; short for --eval.seed")
    parser.add_argument("--workers", type=int, help="parallel processes; short for --eval.workers")
    parser.add_argument(
        "--controls", type=tuple[str, ...], help="all, none or names with commas; short for --eval.controls"
    )
    parser.add_argument(
        "--out", type=str, help="folder for results.json, table and report; a new one in runs/eval if left out"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace another evaluation that is in --out")
    parser.add_argument("--videos", type=int, default=2, help="videos per task in the report")
    describe_option(parser, "tasks", "tasks to evaluate, short for --eval.tasks; those of the training if left out")
    for argument in arguments:
        if re.match(r"--(policy|train|collect|dagger|rl|finetune)\b", argument):
            raise ValueError(f"{argument}: has no part in judging, the checkpoint is as it was trained; leave it out")
    # Here --tasks are the tasks to evaluate; the run's own list says what was trained.
    parsed = parse(parser, [re.sub(r"^--tasks(?==|$)", "--eval.tasks", argument) for argument in arguments])
    use_task_modules(filter(None, [parsed.task_module]))
    from eval.result_folder import new_folder
    from vla_policy.checkpoint import resolve_checkpoint

    changes: dict[str, Any] = {k: getattr(parsed, k) for k in ("episodes", "seed", "workers", "controls")}
    config = replace(eval_config(parsed), **{k: v for k, v in changes.items() if v is not None})
    check_evaluation(config)
    path = resolve_checkpoint(parsed.checkpoint)
    out = Path(parsed.out) if parsed.out else new_folder(parsed.checkpoint)
    judge(path, config, out, log=path.parent, videos=parsed.videos, overwrite=parsed.overwrite)
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
    from envs.guessing import guess_task
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
    more = "every episode of a dataset instead: the tubes' scores, and files for published evaluators"
    parser.add_argument("--data", type=str, help=more)
    parser.add_argument("--episodes", type=int, default=0, help="of --data, the last so many; 0 takes all")
    parser.add_argument("--out", type=str, default="runs/ground", help="folder for tube.mp4 and tube.json")
    more = "read frame by frame, or each frame once; left out, as the policy was trained"
    parser.add_argument("--decode", type=Literal["live", "whole"] | None, help=more)
    more = "take the middle square of other pictures, or pad them; left out, as the policy can"
    parser.add_argument("--fit", type=Literal["square", "letterbox"] | None, help=more)
    parser.add_class_arguments(TubeRules, "rules")
    parsed = parse(parser, arguments)
    use_task_modules(filter(None, [parsed.task_module]))
    from configs.decode import decode as decode_settings
    from configs.seeds import split_seed
    from envs.guessing import guess_task
    from eval import ground as grounding
    from eval.videos import read_video
    from vla_policy.checkpoint import NOTHING, load_checkpoint, resolve_checkpoint

    words, rules = parsed.instruction, decode_settings(TubeRules, parsed.rules.as_dict())
    if parsed.video and (parsed.task or not words):
        raise ValueError("--video needs --instruction and goes without --task; say what to look for in it")
    if parsed.data and (parsed.video or parsed.task or words):
        raise ValueError("--data brings its own words, and goes without --video, --task and --instruction")
    if parsed.episodes < 0 or (parsed.episodes and not parsed.data):
        raise ValueError(f"--episodes {parsed.episodes} must be 0 or more, and goes with --data")
    checkpoint = load_checkpoint(resolve_checkpoint(parsed.checkpoint))
    decode = parsed.decode or grounding.usual_decode(checkpoint)
    _say_unread(checkpoint, words)
    out = Path(parsed.out)
    make_folder(out)
    with hold_folder(out), ExitStack() as stack:
        progress: Progress | None = None

        def show(done: int, total: int) -> None:
            nonlocal progress
            unit = "episodes" if parsed.data else "steps"
            progress = progress or stack.enter_context(Progress("ground", total, unit))
            progress.update(done)

        if parsed.data:
            from eval.ground_data import ground_dataset, write_scores

            judged = ground_dataset(
                checkpoint, Path(parsed.data), decode, rules, last=parsed.episodes, on_progress=show
            )
            print("\n".join(write_scores(out, judged)))
            return 0
        if parsed.video:
            fit = parsed.fit or grounding.usual_fit(checkpoint)
            seen = read_video(Path(parsed.video), grounding.control_rate_of(checkpoint), fit)
            found = grounding.ground_video(checkpoint, seen, words, show, decode=decode, rules=rules)
        elif checkpoint.purpose.action_names == NOTHING:
            raise ValueError("this policy was imported and knows no task; give --video and --instruction, or --data")
        else:
            tasks = checkpoint.purpose.tasks
            task = parsed.task or (guess_task(words, tasks) if words else tasks[0])
            seed = split_seed("test", parsed.seed)
            found = grounding.ground_episode(checkpoint, task, seed, words, show, decode=decode, rules=rules)
        video, described = grounding.write_grounding(out, found)
    interval, rate = found.tube.interval, found.control_hz
    said = "no event"
    if not found.tube.tells_time:
        said = "boxes only: this policy was not trained to tell when (grounding.interval_weight)"
    elif interval is not None:
        said = f"from {interval[0] / rate:.1f} s to {(interval[1] + 1) / rate:.1f} s"
    print(f"{found.instruction!r}: {said}\n{video}\n{described}")
    return 0


def demo(arguments: list[str]) -> int:
    parser = run_parser("demo", "track", hidden=("dagger", "rl", "finetune"))
    parser.add_argument("--out", type=str, help="folder of the run; runs/NAME if left out")
    parser.add_argument("--videos", type=int, default=3, help="videos per task in the report")
    parser.add_argument("--overwrite", action="store_true", help="replace an evaluation with other settings in --out")
    parsed = parse(parser, arguments)
    use_task_modules(filter(None, [parsed.task_module]))
    config = run_config(parsed)
    check_demonstrable(config)
    check_evaluation(config.eval)
    out = Path(parsed.out or f"runs/{Path(str(parsed.config)).stem}")
    with hold_folder(out):
        return _demo(config, out, parsed.videos, parsed.overwrite)


def _demo(config: RunConfig, out: Path, videos: int, overwrite: bool) -> int:
    from eval.results import write_whole
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
    judge(checkpoint, config.eval, out / "eval", log=folder, videos=videos, overwrite=overwrite)
    ended = time.monotonic()
    times = {
        "collect": round(collected - started, 1),
        "train": round(trained - collected, 1),
        "evaluate": round(ended - trained, 1),
        "total": round(ended - started, 1),
    }
    write_whole(out / "times.json", json.dumps(times, indent=2) + "\n")
    print(", ".join(f"{name} {seconds:.0f} s" for name, seconds in times.items()))
    return 0


def bench(arguments: list[str]) -> int:
    parser = plain_parser("bench")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for each ratio")
    parser.add_argument("--episodes", type=int, default=200, help="test seeds for each task's expert")
    parser.add_argument("--out", type=str, help="JSON file for the figures")
    parser.add_argument("--tasks", type=tuple[str, ...], help="tasks or suites whose experts alone are measured")
    parser.add_argument("--expert", type=str, default="", help="folder of `vla rl`: measure that expert, of --tasks")
    parser.add_argument("--serve", type=str, default="", help="checkpoint: measure a server of it alone, under load")
    parser.add_argument("--clients", type=int, default=100, help="clients of that server at the same time")
    parsed = parse(parser, arguments)
    if not parsed.seconds > 0 or parsed.episodes < 1:
        raise ValueError(f"--seconds {parsed.seconds:g} must be above 0, and --episodes {parsed.episodes} at least 1")
    if parsed.serve and (parsed.tasks or parsed.expert):
        raise ValueError("--serve measures a server alone; leave --tasks and --expert out")
    if parsed.expert and not parsed.tasks:
        raise ValueError(f"--expert {parsed.expert}: name the task that it learned with --tasks")
    use_task_modules(filter(None, [parsed.task_module]))
    from eval.results import write_whole
    from training.bench import pipeline_ratio
    from training.collect_bench import collection_ratio, expert_success

    figures: dict[str, Any] = {}
    with hold_file(Path(parsed.out)) if parsed.out else nullcontext():
        if parsed.serve:
            figures["serving"] = _serving(parsed.serve, parsed.clients, parsed.seconds)
        elif not parsed.tasks:
            figures["collection"] = collection_ratio(parsed.seconds)
            figures["pipeline"] = pipeline_ratio(parsed.seconds)
        if not parsed.serve:
            experts = find_tasks(parsed.tasks) if parsed.tasks else None
            figures["experts"] = expert_success(parsed.episodes, experts, parsed.expert)
        print(json.dumps(figures, indent=2))
        if parsed.out:
            write_whole(Path(parsed.out), json.dumps(figures, indent=2) + "\n")
    return 0


def _serving(checkpoint: str, clients: int, seconds: float) -> dict[str, Any]:
    from vla_policy.server.commands import require_packages

    require_packages()
    from eval.serving import serving_load

    return serving_load(checkpoint, clients, seconds)


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
