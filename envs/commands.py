"""`vla tasks`."""

from __future__ import annotations

from configs.options import parse, plain_parser
from envs.task import all_tasks, use_task_modules

WIDTH = 24  # of the column of names


def tasks(arguments: list[str]) -> int:
    """List every task: ours, those of installed packages, and those of the modules that were named."""
    parsed = parse(plain_parser("tasks"), arguments)
    use_task_modules(filter(None, [parsed.task_module]))
    for spec in all_tasks().values():
        groups = ", ".join([*spec.suites, *filter(None, [spec.difficulty])])
        print(f'{spec.name:<{WIDTH}}{spec.env_id:<{WIDTH}}"{spec.example}"')
        print(f"{groups:<{WIDTH}}success: {spec.success}")
    return 0
