"""`vla tasks`."""

from __future__ import annotations

from configs.options import parse, plain_parser
from envs.task import all_tasks, use_task_modules


def tasks(arguments: list[str]) -> int:
    """List every task: ours, those of installed packages, and those of the modules that were named."""
    parsed = parse(plain_parser("tasks"), arguments)
    use_task_modules(filter(None, [parsed.task_module]))
    rows = [(spec, ", ".join([*spec.suites, *filter(None, [spec.difficulty])])) for spec in all_tasks().values()]
    first = 2 + max(len(text) for spec, groups in rows for text in (spec.name, groups))
    second = 2 + max(len(spec.env_id) for spec, _ in rows)
    for spec, groups in rows:
        print(f'{spec.name:<{first}}{spec.env_id:<{second}}"{spec.example}"')
        print(f"{groups:<{first}}success: {spec.success}")
        if spec.variations:
            print(f"{'':<{first}}can be tried with another {', '.join(spec.variations)}")
    return 0
