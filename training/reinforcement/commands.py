"""`vla rl`: an expert for `vla collect --collect.expert`. `vla finetune`: a cloned policy goes on by reinforcement."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from configs.decode import decode
from configs.options import eval_config, parse, run_config, run_parser
from configs.reinforcement import FinetuneConfig
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
        outcome = learn(config.rl, tasks[0], Path(parsed.out), resume=parsed.resume, on_progress=_show(progress))
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
    words = "demonstrations, as of `vla train`, of the tasks that the policy is not to unlearn"
    parser.add_argument("--data", type=str, help=words)
    parser.add_argument("--out", type=str, default="runs/finetune", help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parsed = parse(parser, arguments)
    use_task_modules(filter(None, [parsed.task_module]))
    config = decode(FinetuneConfig, parsed.finetune.as_dict())  # the run's policy is not the one that goes on
    tasks = find_tasks(parsed.tasks)
    if len(tasks) != 1:
        raise ValueError(f"tasks {list(tasks)}: a policy goes on in one task; name one with --tasks")
    from training.data.episodes import open_datasets
    from training.reinforcement.finetune import finetune as go_on
    from vla_policy.checkpoint import load_checkpoint, resolve_checkpoint

    start = resolve_checkpoint(parsed.checkpoint)
    datasets = []
    if parsed.data is not None:
        folder, known = Path(parsed.data), load_checkpoint(start).purpose.tasks
        datasets = open_datasets(folder, [task for task in known if (folder / task).is_dir()] or known)
    with Progress(f"finetune {tasks[0]}", config.steps, "decisions") as progress:
        done = go_on(
            config,
            tasks[0],
            start,
            Path(parsed.out),
            runner=eval_config(parsed).runner,
            datasets=tuple(datasets),
            resume=parsed.resume,
            on_progress=_show(progress),
        )
    if done.interrupted:
        print(f"interrupted after {done.step} decisions; go on with --resume")
        return 130
    best, first = max(done.rows, key=lambda row: row["successes"]), done.rows[0]
    judged = f"{best['successes']} of {best['episodes']} validation episodes"
    print(f"{done.checkpoint}: {judged} after {best['step']} decisions, {first['successes']} before")
    return 0


def _show(progress: Progress) -> Callable[[int, str], None]:
    """Shows steps, and goes on showing the newest words."""
    newest = ""

    def show(step: int, words: str) -> None:
        nonlocal newest
        newest = words or newest
        progress.update(step, newest)

    return show
