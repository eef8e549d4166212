"""`vla rl`: an expert for `vla collect --collect.expert`. `vla finetune`: a cloned policy goes on by reinforcement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.options import parse, run_config, run_parser
from envs.task import find_tasks, use_task_modules
from training.progress import Progress


def rl(arguments: list[str]) -> int:
    """Learn an expert for the one task of a run."""
    more = "Its folder is what `vla collect --collect.expert` takes in place of the scripted expert"
    parser = run_parser("rl", "push_sac", more, hidden=("collect", "policy", "train", "eval", "dagger", "finetune"))
    parser.add_argument("--out", type=str, default="runs/rl", help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parsed = parse(parser, arguments)
    use_task_modules(filter(None, [parsed.task_module]))
    config = run_config(parsed)
    tasks = find_tasks(config.tasks)
    if len(tasks) != 1:
        raise ValueError(f"tasks {list(tasks)}: an expert is learned for one task; name one")
    from training.reinforcement.learn import learn

    with Progress(f"learn {tasks[0]}", config.rl.steps, "steps") as progress:
        words = ""

        def show(step: int, row: dict[str, Any]) -> None:
            nonlocal words
            if row:
                words = f"{row['successes']} of {row['episodes']} validation episodes at step {row['step']}"
            progress.update(step, words)

        outcome = learn(config.rl, tasks[0], Path(parsed.out), resume=parsed.resume, on_progress=show)
    if outcome.interrupted:
        print(f"interrupted at step {outcome.step}; go on with --resume")
        return 130
    print(f"{outcome.expert}: {outcome.successes} of {outcome.episodes} validation episodes")
    return 0


def finetune(arguments: list[str]) -> int:
    """Let a cloned policy go on by reinforcement in the one task of a run."""
    more = "CHECKPOINT is a folder, or the name of a policy that ships"
    parser = run_parser("finetune", "track", more, hidden=("collect", "policy", "train", "dagger", "rl"))
    parser.add_argument("checkpoint", type=str, help="checkpoint folder, or the name of a policy that ships")
    words = "demonstrations, as of `vla train`, of all tasks that the policy is not to unlearn"
    parser.add_argument("--data", type=str, help=words)
    parser.add_argument("--out", type=str, default="runs/finetune", help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parsed = parse(parser, arguments)
    use_task_modules(filter(None, [parsed.task_module]))
    config = run_config(parsed)
    tasks = find_tasks(config.tasks)
    if len(tasks) != 1:
        raise ValueError(f"tasks {list(tasks)}: a policy goes on in one task; name one with --tasks")
    from training.data.episodes import HEADER, open_dataset
    from training.reinforcement.finetune import finetune as go_on
    from vla_policy.checkpoint import load_checkpoint, resolve_checkpoint

    start = resolve_checkpoint(parsed.checkpoint)
    datasets = []
    if parsed.data is not None:
        folder = Path(parsed.data)
        one = (folder / HEADER).is_file()
        known = load_checkpoint(start).purpose.tasks
        datasets = [open_dataset(path) for path in ([folder] if one else [folder / task for task in known])]
    with Progress(f"finetune {tasks[0]}", config.finetune.steps, "decisions") as progress:
        words = ""

        def show(step: int, row: dict[str, Any]) -> None:
            nonlocal words
            if row:
                words = f"{row['successes']} of {row['episodes']} validation episodes after {row['step']}"
            progress.update(step, words)

        done = go_on(
            config.finetune,
            tasks[0],
            start,
            Path(parsed.out),
            runner=config.eval.runner,
            datasets=tuple(datasets),
            resume=parsed.resume,
            on_progress=show,
        )
    if done.interrupted:
        print(f"interrupted after {done.step} decisions; go on with --resume")
        return 130
    best, first = max(done.rows, key=lambda row: row["successes"]), done.rows[0]
    judged = f"{best['successes']} of {best['episodes']} validation episodes"
    print(f"{done.checkpoint}: {judged} after {best['step']} decisions, {first['successes']} before")
    return 0
