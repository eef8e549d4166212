"""What the tasks of a suite come to together: by difficulty, and in both averages that published results use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from eval.results import Results, TaskResult
from eval.statistics import wilson_interval


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Success rate in [0, 1], and its Wilson interval; None for an average of rates, which has none."""

    rate: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Group:
    """Tasks that count together, with the rate of each condition that all of them were judged under."""

    name: str
    tasks: int
    rates: dict[str, Rate]


MEAN, ALL = "mean of the difficulties", "all episodes"


def by_difficulty(results: Results) -> list[Group]:
    """The tasks of each difficulty, in the order in which they come; then the mean of the difficulties, each counting
    alike, and all episodes, each counting alike. Empty unless there are two difficulties or more.
    """
    difficulty: dict[str, str] = results.settings.get("difficulty", {})
    names = list(dict.fromkeys(difficulty[task] for task in results.tasks if task in difficulty))
    if len(names) < 2:
        return []
    tasks = {name: [t for task, t in results.tasks.items() if difficulty.get(task) == name] for name in names}
    every = [task for group in tasks.values() for task in group]
    groups = [_group(name, group) for name, group in tasks.items()]
    whole = _group(ALL, every)
    means = {
        condition: Rate(rate=sum(group.rates[condition].rate for group in groups) / len(groups), interval=None)
        for condition in whole.rates
    }
    return [*groups, Group(name=MEAN, tasks=len(every), rates=means), whole]


def _group(name: str, tasks: list[TaskResult]) -> Group:
    shared = _shared(task.conditions for task in tasks)
    rates = {}
    for condition in shared:
        episodes = [episode for task in tasks for episode in task.conditions[condition].results]
        successes = sum(episode.success for episode in episodes)
        if episodes:
            rates[condition] = Rate(rate=successes / len(episodes), interval=wilson_interval(successes, len(episodes)))
    return Group(name=name, tasks=len(tasks), rates=rates)


def _shared(conditions: Iterable[Iterable[str]]) -> list[str]:
    """Names that all have, in the order of the first."""
    lists = [list(names) for names in conditions]
    return [name for name in lists[0] if all(name in others for others in lists)] if lists else []
