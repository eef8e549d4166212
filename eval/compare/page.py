"""A comparison for people: one HTML file with bars, success against cost, the table, and what the table cannot show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from eval.compare.rows import Entry, Rate, overlaps, rate_text, several_budgets
from eval.report.figures import NONE, interval, number, points, thousands
from eval.report.page import TEMPLATES
from eval.report.plots import Bar, legend_above, rate_bars
from eval.report.svg import STAND_IN, STYLE, new_figure, standalone, to_svg
from eval.results import write_whole

# Colours of one line each, then again with other dashes.
CURVES = ("policy", "control", "expert", "extra", "variant")
DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))
SPREAD = 0.08  # of a budget's points, side by side, share of the budget


def write_comparison(entries: Sequence[Entry], out: Path) -> Path:
    """Write `comparison.html` into `out` and return its path; beside it, if there were several budgets, the picture of
    success against samples for every task.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(enabled_extensions=("j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tasks = list(dict.fromkeys(entry.task for entry in entries))
    for task in tasks:
        if drawn := success_against_samples([entry for entry in entries if entry.task == task]):
            write_whole(
                out / f"{task.replace(' ', '_')}_samples.svg",
                standalone(drawn, (TEMPLATES / "colours.css").read_text()),
            )
    page = environment.get_template("comparison.html.j2").render(
        tasks=[_task_view(task, [entry for entry in entries if entry.task == task]) for task in tasks],
        several=several_budgets(entries),
        failures=sorted({f"{_full_name(entry, entries)}, {f}" for entry in entries for f in entry.failures}),
        seeds=max((len(entry.seeds) for entry in entries), default=0),
        costs=any(entry.cost is not None for entry in entries),
    )
    return write_whole(out / "comparison.html", page)


def _full_name(entry: Entry, entries: Sequence[Entry]) -> str:
    return f"{entry.variant}, {thousands(entry.budget)} samples" if several_budgets(entries) else entry.variant


def short_title(variant: str) -> str:
    """A row's changes for people: "fusion=vote,fusion.rule=soft" → "fusion vote, rule soft"."""
    return ", ".join(part.split(".")[-1].replace("=", " ").replace("_", " ") for part in variant.split(","))


def bars(entries: Sequence[Entry]) -> str | None:
    """Success of every variant with its interval; dots are the single training seeds."""
    drawn = [
        Bar(
            title=short_title(entry.variant),
            rate=entry.success.rate,
            low=entry.success.low,
            high=entry.success.high,
            colour="policy" if entry is entries[0] else "variant",
            parts=entry.success.by_seed,
        )
        for entry in entries
        if entry.success is not None
    ]
    return rate_bars(drawn, "Success rate of each variant with its 95 % interval")


def success_against_cost(entries: Sequence[Entry]) -> str | None:
    """Success over the operations of one decision, with intervals and names."""
    shown = [(e, e.success, e.cost) for e in entries if e.success is not None and e.cost is not None]
    if not shown:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(3.6)
        for entry, success, cost in shown:
            assert success is not None
            assert cost is not None
            _point(axes, entry, success, cost.flops / 1e6, first=entry is entries[0])
        axes.set_xscale("log")
        axes.set_ylim(-0.03, 1.05)
        axes.set_yticks(np.linspace(0.0, 1.0, 6), [f"{share} %" for share in range(0, 101, 20)])
        axes.set_xlabel("million operations a decision")
        axes.margins(x=0.15)
        return to_svg(figure, "Success rate against the operations of one decision")


def success_against_samples(entries: Sequence[Entry]) -> str | None:
    """Success over the training samples, a line with its intervals a variant; None if all had one budget."""
    curves: dict[str, list[tuple[int, Rate]]] = {}
    for entry in entries:
        if entry.budget is not None and entry.success is not None:
            curves.setdefault(entry.variant, []).append((entry.budget, entry.success))
    if not curves or not several_budgets(entries):
        return None
    budgets = sorted({budget for curve in curves.values() for budget, _ in curve})
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(3.8)
        for number, (variant, curve) in enumerate(curves.items()):
            colour = STAND_IN[CURVES[number % len(CURVES)]]
            samples = np.array([budget for budget, _ in curve]) * (1 + SPREAD * (number / len(curves) - 0.5))
            rates = np.array([[rate.low, rate.rate, rate.high] for _, rate in curve])
            axes.vlines(samples, rates[:, 0], rates[:, 2], color=colour, linewidth=1.4)
            dashes = DASHES[number // len(CURVES) % len(DASHES)]
            axes.plot(samples, rates[:, 1], "o", linestyle=dashes, color=colour, label=short_title(variant))
        axes.set_xscale("log")
        axes.set_xticks(budgets, [thousands(budget) for budget in budgets])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(-0.03, 1.03)
        axes.set_yticks(np.linspace(0.0, 1.0, 6), [f"{share} %" for share in range(0, 101, 20)])
        axes.set_xlabel("training samples")
        legend_above(axes, columns=1)
        return to_svg(figure, "Success rate against training samples")


def _point(axes: Axes, entry: Entry, success: Rate, cost: float, *, first: bool) -> None:
    colour = STAND_IN["policy" if first else "variant"]
    axes.plot([cost, cost], [success.low, success.high], color=colour, linewidth=1.4)
    axes.plot([cost], [success.rate], "o", color=colour, markersize=7 if first else 5)
    axes.annotate(
        short_title(entry.variant),
        (cost, success.rate),
        (5, 4),
        textcoords="offset points",
        fontsize=8,
        color=STAND_IN["ink"],
    )


def _task_view(task: str, entries: Sequence[Entry]) -> dict[str, Any]:
    controls = list(dict.fromkeys(name for entry in entries for name in entry.controls))
    budgets = [entry.budget for entry in entries if entry.budget is not None] if several_budgets(entries) else []
    last = [entry for entry in entries if not budgets or entry.budget == max(budgets)]
    measures = overlaps(entries)
    drawn, against, curves = bars(last), success_against_cost(last), success_against_samples(entries)
    return {
        "name": task,
        "reference": entries[0].variant,
        "controls": [name.replace("_", " ") for name in controls],
        "most": thousands(max(budgets)) if budgets else None,
        "curves": Markup(curves) if curves else None,
        "bars": Markup(drawn) if drawn else None,
        "cost": Markup(against) if against else None,
        "measures": list(measures),
        "rows": [_row(entry, controls, [column[i] for column in measures.values()]) for i, entry in enumerate(entries)],
    }


def _row(entry: Entry, controls: Sequence[str], fits: Sequence[float | None]) -> dict[str, Any]:
    success, d, cost = entry.success, entry.difference, entry.cost
    return {
        "variant": short_title(entry.variant),
        "seeds": str(len(entry.seeds)),
        "rate": rate_text(success),
        "interval": interval(success.low, success.high) if success else "",
        "difference": points(d.difference) if d else NONE,
        "difference_interval": f"{points(d.low)} to {points(d.high)}" if d else "",
        "controls": [rate_text(entry.controls.get(name)) for name in controls],
        "fits": [number(value, 2) for value in fits],
        "parameters": NONE if cost is None else f"{cost.parameters / 1e6:.2f} M",
        "flops": NONE if cost is None else f"{cost.flops / 1e6:.0f}",
        "speed": number(entry.samples_per_second, 0),
        "latency": NONE if cost is None else f"{cost.latency_p50_ms:.1f}, {cost.latency_p99_ms:.1f}",
        "samples": thousands(entry.samples),
    }
