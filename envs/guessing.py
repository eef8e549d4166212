"""The task that fits a user's words."""

from __future__ import annotations

from collections.abc import Sequence

from envs.task import TaskSpec, all_tasks, find_task


def guess_task(text: str, tasks: Sequence[str]) -> str:
    """The task that fits a user's words best, out of those that a policy knows; where no task's verbs are among them,
    one that has no verbs of its own.

    Raises:
        ValueError: the words mean nothing in any of them; the message says what one of them expects.
    """
    specs = [find_task(name) for name in tasks]

    def fit(spec: TaskSpec) -> tuple[int, int, bool]:
        return spec.specificity, sum(verb in text.lower() for verb in spec.verbs), not spec.verbs

    readable = [spec for spec in specs if _mistake(spec, text) is None]
    if readable:
        return max(readable, key=fit).name
    others = [spec for spec in all_tasks().values() if spec not in specs and _mistake(spec, text) is None]
    if others:
        other = max(others, key=fit).name
        raise ValueError(
            f"instruction {text!r} is one for {other}, and the policy was trained on {', '.join(tasks)}; "
            f"take a policy that was trained on {other}"
        )
    mistakes = [(spec, _mistake(spec, text)) for spec in sorted(specs, key=fit, reverse=True)]
    raise next(mistake for _, mistake in mistakes if mistake is not None)


def _mistake(spec: TaskSpec, text: str) -> ValueError | None:
    """Why a task cannot read a text; None if it can."""
    try:
        spec.read(text)
    except ValueError as error:
        return error
    return None
