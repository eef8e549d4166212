"""From a checkpoint to a folder with results, table, report and videos, in this order: what is found is never lost to
what only shows it.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from envs.task import find_tasks
from training.lock import hold_folder
from training.progress import Progress

if TYPE_CHECKING:
    from configs.evaluation import EvalConfig
    from eval.results import Results

CRITERION_EPISODES = 200  # fewer make a success rate too vague to quote


def check_evaluation(config: EvalConfig) -> None:
    """Refuse an evaluation of what nobody knows, before the work that comes ahead of it.

    Raises:
        ValueError: a control or a task is unknown, or cannot be tried so; the message names the nearest one.
    """
    from envs.task import find_task
    from eval.controls import choose_controls

    choose_controls(config.controls)
    for task in find_tasks(config.tasks):
        find_task(task).varied(config.variation)


def judge(path: Path, config: EvalConfig, out: Path, *, log: Path, videos: int, overwrite: bool = False) -> None:
    """Evaluate a checkpoint into a folder, and report. An evaluation that was interrupted there goes on.

    Args:
        log: folder of the run that trained it.
        videos: of each task.
        overwrite: replace another evaluation in the folder.

    Raises:
        ValueError: the checkpoint or the folder cannot be used, or the folder holds another evaluation.
        DiskFullError: there is no room; what fitted is kept.
    """
    from vla_policy.checkpoint import load_checkpoint

    load_checkpoint(path)  # what is wrong with it comes to light before a folder is made
    make_folder(out)
    with hold_folder(out):
        results = _evaluate(path, config, out, overwrite)
        _report(results, path, config, out, log=log, videos=videos)


def _evaluate(path: Path, config: EvalConfig, out: Path, overwrite: bool) -> Results:
    from eval.evaluate import evaluate as evaluate_policy
    from eval.result_folder import RESULTS, begin, take_up
    from eval.results import save_results

    def save(results: Results) -> None:
        save_results(results, begin(out) / RESULTS)

    def before(wanted: Results) -> Results | None:
        found = take_up(out, wanted, overwrite=overwrite)
        if found is not None:
            print(f"{out}: goes on from the results of {found.created}; --overwrite judges anew", flush=True)
        return found

    with ExitStack() as stack:
        progress: Progress | None = None

        def show(task: str, condition: str, done: int, total: int) -> None:
            nonlocal progress
            progress = progress or stack.enter_context(Progress("evaluate", total, "episodes"))
            progress.update(done, f"{task} {condition}")

        results = evaluate_policy(path, config, on_progress=show, on_condition=save, take_up=before)
    save(results)
    return results


def _report(results: Results, path: Path, config: EvalConfig, out: Path, *, log: Path, videos: int) -> None:
    from configs.disk import DiskFullError
    from eval.report.answers import summary
    from eval.report.page import difficulty_table, markdown_table, write_report
    from eval.result_folder import REPORT, RESULTS, TABLE, add_videos, begin, publish
    from eval.results import write_whole
    from training.log import read_log

    table, curve = "\n".join(filter(None, [markdown_table(results), difficulty_table(results)])), read_log(log) or None
    made = begin(out)
    write_whole(made / TABLE, table + "\n")
    write_report(results, made, None, curve)
    publish(out)
    print(table)
    for name, task in results.tasks.items():
        print(summary(name, task))
        for control, why in results.settings.get("not_offered", {}).get(name, {}).items():
            print(f"{name}: no {control}, {why}")
        for kind, words in results.settings.get("unread_words", {}).get(name, {}).items():
            print(f"{name}: words of its instructions that the policy reads as {kind}: {', '.join(words)}")
    if config.episodes < CRITERION_EPISODES:
        print(f"{config.episodes} episodes a condition are too few to quote; take {CRITERION_EPISODES} or more")
    print(f"{out / RESULTS}\n{out / REPORT}", flush=True)
    if videos:
        print("writing videos", flush=True)
        try:
            write_report(results, begin(out), _record(results, path, config, out, videos), curve)
            add_videos(out)
        except DiskFullError as error:
            raise DiskFullError(f"{error}. Results, table and a report without videos are in {out}") from None


def _record(results: Results, path: Path, config: EvalConfig, out: Path, count: int) -> dict[str, Path]:
    """Videos of the first test seeds, and of the first failure among the others, so that the report hides none."""
    from eval.acting import GROUP
    from eval.report.episode_video import record, write_video
    from eval.result_folder import VIDEOS, begin
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
            row, varied = i % GROUP, config.variation
            recording = record(checkpoint, task, seed, runner=config.runner, row=row, variation=varied)
            key = f"{task}/{POLICY}/{seed}"
            videos[key] = write_video(recording, begin(out) / VIDEOS / f"{task}-{seed}.mp4")
    return videos


def make_folder(path: Path) -> None:
    """Make the folder for results and try to write to it, before the work that would be lost.

    Raises:
        ValueError: it cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        reason = "it is a file" if path.is_file() else error.strerror
        raise ValueError(f"--out {path}: no folder that can be written to ({reason}); choose another one") from None
