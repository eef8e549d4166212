"""`vla rl`: an expert learned by reinforcement, for `vla collect --collect.expert`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.options import parse, run_config, run_parser
from envs.task import find_tasks, use_task_modules
from training.progress import Progress


def rl(arguments: list[str]) -> int:
    """Learn an expert for the one task of a run."""
    more = "Its folder is what `vla collect --collect.expert` takes in place of the scripted expert"
    parser = run_parser("rl", "push_sac", more, hidden=("collect", "policy", "train", "eval", "dagger"))
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
