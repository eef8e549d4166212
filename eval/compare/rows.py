"""Several policies, trained on the same data with the same budgets and judged on the same seeds, side by side.

Every row of a comparison is a folder with `row.json` (a `RowOutcome`) and, if it was judged, `eval/results.json`.
`summarise` joins the training seeds of a variant: rates are over all their episodes, and the difference to the
reference, the first variant, is over pairs of the same budget, training seed and test seed. The intervals say how much
the test scenes may have to do with it; what another training seed would give is seen only where several were trained.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from configs.reading import parse_json
from eval.cost import Cost
from eval.report.figures import NONE, number, points_and_interval, rate_and_interval, thousands
from eval.results import POLICY, EpisodeResult, Results, load_results, write_whole
from eval.statistics import PairedDifference, mean_known, paired_difference, wilson_interval

ROW = "row.json"
RESULTS = Path("eval") / "results.json"


@dataclass(frozen=True, kw_only=True)
class RowOutcome:
    """What became of one row: `failure` is empty for one that was trained and judged, else says why it was not.
    `settings` is what the rows share and the outcome rests on: budget, data, evaluation. `samples_per_second` and
    `cost` are measured apart, when nothing else runs. `budget` is that of its samples, None if it was time.
    """

    variant: str
    seed: int
    budget: int | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    samples: int = 0
    samples_per_second: float | None = None
    cost: Cost | None = None


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A success rate with its Wilson interval, and the rates of the single training seeds in their order."""

    rate: float
    low: float
    high: float
    episodes: int
    by_seed: list[float]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One variant on one task, or on all together, with one of the budgets. `difference` is None for the reference,
    `success` where nothing was judged. `tube_iou` is m_vIoU and `temporal_iou` m_tIoU of `eval.tubes`; these and
    `box_iou` are means over the training seeds.
    """

    variant: str
    task: str
    budget: int | None
    seeds: list[int]
    success: Rate | None
    difference: PairedDifference | None
    controls: dict[str, Rate]
    box_iou: float | None
    tube_iou: float | None
    temporal_iou: float | None
    samples: int
    samples_per_second: float | None
    cost: Cost | None
    failures: list[str]


def save_row(outcome: RowOutcome, folder: Path) -> None:
    write_whole(folder / ROW, json.dumps(asdict(outcome), indent=1) + "\n")


def load_row(folder: Path) -> RowOutcome | None:
    """What `save_row` wrote; None if there is nothing, or nothing readable, and the row has to be run."""
    try:
        read = parse_json((folder / ROW).read_text())
        cost = Cost(**read.pop("cost")) if read.get("cost") else None
        return RowOutcome(**{**read, "cost": cost})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def summarise(rows: Sequence[tuple[RowOutcome, Path]], tasks: Sequence[str]) -> list[Entry]:
    """One entry a task, variant and budget, in the order of the rows; the first variant is the reference. Where there
    are several tasks, those of all together come first.
    """
    outcomes = [outcome for outcome, _ in rows]
    variants = list(dict.fromkeys(outcome.variant for outcome in outcomes))
    kinds = sorted(dict.fromkeys((o.variant, o.budget) for o in outcomes), key=lambda kind: variants.index(kind[0]))
    judged = {
        (outcome.variant, outcome.budget, outcome.seed): load_results(folder / RESULTS)
        for outcome, folder in rows
        if not outcome.failure and (folder / RESULTS).is_file()
    }
    groups = {f"all {len(tasks)} tasks": tasks} if len(tasks) > 1 else {}
    groups |= {task: [task] for task in tasks}
    return [
        _entry(kind, variants[0], name, group, outcomes, judged) for name, group in groups.items() for kind in kinds
    ]


def _entry(
    kind: tuple[str, int | None],
    reference: str,
    name: str,
    tasks: Sequence[str],
    outcomes: Sequence[RowOutcome],
    judged: dict[tuple[str, int | None, int], Results],
) -> Entry:
    variant, budget = kind
    own = [outcome for outcome in outcomes if (outcome.variant, outcome.budget) == kind]
    found = {
        o.seed: [judged[*kind, o.seed].tasks[task].conditions for task in tasks]
        for o in own
        if (*kind, o.seed) in judged
    }
    # A control counts where all of the tasks offer it, and of the training seeds that were judged with it.
    offered = {seed: [name for name in c[0] if all(name in one for one in c)] for seed, c in found.items()}
    rates = {
        name: _rate(
            [[e for one in found[s] for e in one[name].results] for s, names in offered.items() if name in names]
        )
        for name in dict.fromkeys(name for names in offered.values() for name in names)
    }
    pairs: list[tuple[bool, bool]] = []
    for seed, conditions in found.items():
        if variant != reference and (reference, budget, seed) in judged:
            for task, own_conditions in zip(tasks, conditions, strict=True):
                others = judged[reference, budget, seed].tasks[task].conditions[POLICY].results
                theirs = {e.seed: e.success for e in others}
                ours = own_conditions[POLICY].results
                pairs += [(e.success, theirs[e.seed]) for e in ours if e.seed in theirs]
    meant = [one[POLICY] for conditions in found.values() for one in conditions]
    tubes = [condition.tubes for condition in meant if condition.tubes is not None]
    trained = [o for o in own if not o.failure]
    return Entry(
        variant=variant,
        task=name,
        budget=budget,
        seeds=list(found),
        success=rates.pop(POLICY, None),
        difference=paired_difference([a for a, _ in pairs], [b for _, b in pairs]) if pairs else None,
        controls=rates,
        box_iou=mean_known([condition.box_iou for condition in meant]),
        tube_iou=mean_known([tube.mean_tube_iou for tube in tubes]),
        temporal_iou=mean_known([tube.mean_temporal_iou for tube in tubes]),
        samples=max((o.samples for o in trained), default=0),
        samples_per_second=next((o.samples_per_second for o in trained), None),
        cost=next((o.cost for o in trained if o.cost is not None), None),
        failures=[f"seed {o.seed}: {o.failure}" for o in own if o.failure],
    )


def overlaps(entries: Sequence[Entry]) -> dict[str, list[float | None]]:
    """How well boxes fit, a column a measure that any of the entries has, in their order."""
    columns = {
        "box IoU": [entry.box_iou for entry in entries],
        "m_vIoU": [entry.tube_iou for entry in entries],
        "m_tIoU": [entry.temporal_iou for entry in entries],
    }
    return {name: column for name, column in columns.items() if any(value is not None for value in column)}


def _rate(by_seed: Sequence[Sequence[EpisodeResult]]) -> Rate:
    counts = [(sum(e.success for e in episodes), len(episodes)) for episodes in by_seed]
    successes, episodes = sum(s for s, _ in counts), sum(n for _, n in counts)
    low, high = wilson_interval(successes, episodes)
    return Rate(
        rate=successes / max(episodes, 1),
        low=low,
        high=high,
        episodes=episodes,
        by_seed=[s / n for s, n in counts if n],
    )


def comparison_table(entries: Sequence[Entry]) -> str:
    """The comparison as Markdown: one row a task, variant and budget."""
    controls = list(dict.fromkeys(name for entry in entries for name in entry.controls))
    several = several_budgets(entries)
    header = ["task", "variant", *(["samples"] if several else []), "seeds", "success (95 % interval)"]
    header += ["against the reference"]
    header += [name.replace("_", " ") for name in controls]
    measures = overlaps(entries)
    header += [*measures, "parameters", "MFLOP", "samples/s", "latency p50, p99"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * 2 + "---:|" * (len(header) - 2)]
    for i, entry in enumerate(entries):
        cells = [entry.task, entry.variant, *([thousands(entry.budget)] if several else []), str(len(entry.seeds))]
        cells += [_rate_text(entry.success)]
        cells += [points_and_interval(entry.difference)]
        cells += [rate_text(entry.controls.get(name)) for name in controls]
        cells += [number(column[i], 2) for column in measures.values()]
        cost = entry.cost
        cells += [NONE] * 2 if cost is None else [f"{cost.parameters / 1e6:.2f} M", f"{cost.flops / 1e6:.0f}"]
        cells += [number(entry.samples_per_second, 0)]
        cells += [NONE if cost is None else f"{cost.latency_p50_ms:.1f}, {cost.latency_p99_ms:.1f} ms"]
        lines.append("| " + " | ".join(cells) + " |")
    for entry in entries:
        budget = f", {thousands(entry.budget)} samples" if several else ""
        lines += [f"\n{entry.variant} ({entry.task}{budget}): {failure}" for failure in entry.failures]
    return "\n".join(lines) + "\n"


def several_budgets(entries: Sequence[Entry]) -> bool:
    return len({entry.budget for entry in entries}) > 1


def rate_text(rate: Rate | None) -> str:
    return NONE if rate is None else f"{100 * rate.rate:.1f} %"


def _rate_text(rate: Rate | None) -> str:
    return NONE if rate is None else rate_and_interval(rate.rate, rate.low, rate.high)
