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

from eval.comparison import NONE, Entry, Rate, percent_text, points_text
from eval.report import TEMPLATES
from eval.results import write_whole
from eval.svg import STAND_IN, STYLE, new_figure, to_svg


def write_comparison(entries: Sequence[Entry], out: Path) -> Path:
    """Write `comparison.html` into `out` and return its path."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(enabled_extensions=("j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tasks = list(dict.fromkeys(entry.task for entry in entries))
    page = environment.get_template("comparison.html.j2").render(
        tasks=[_task_view(task, [entry for entry in entries if entry.task == task]) for task in tasks],
        failures=sorted({f"{entry.variant}, {failure}" for entry in entries for failure in entry.failures}),
        seeds=max((len(entry.seeds) for entry in entries), default=0),
    )
    return write_whole(out / "comparison.html", page)


def bars(entries: Sequence[Entry]) -> str | None:
    """Success of every variant with its interval; dots are the single training seeds."""
    shown = [(entry, entry.success) for entry in entries if entry.success is not None]
    if not shown:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(0.36 * len(shown) + 0.75)
        for row, (entry, success) in enumerate(shown):
            colour = STAND_IN["policy" if entry is entries[0] else "variant"]
            axes.barh(row, success.rate, height=0.58, color=colour, linewidth=0)
            axes.plot([success.low, success.high], [row, row], color=STAND_IN["ink"], linewidth=1.4)
            if len(success.by_seed) > 1:
                places = np.linspace(-0.18, 0.18, len(success.by_seed)) + row
                axes.plot(success.by_seed, places, "o", color=STAND_IN["control"], markersize=4)
            label = f"{100 * success.rate:.1f} %"
            axes.text(1.04, row, label, va="center", transform=axes.get_yaxis_transform())
        axes.set_yticks(range(len(shown)), [entry.variant for entry, _ in shown])
        axes.tick_params(axis="y", length=0, labelcolor=STAND_IN["ink"])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlim(0.0, 1.0)
        axes.set_xticks(np.linspace(0.0, 1.0, 6), [f"{share} %" for share in range(0, 101, 20)])
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        return to_svg(figure, "Success rate of each variant with its 95 % interval")


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


def _point(axes: Axes, entry: Entry, success: Rate, cost: float, *, first: bool) -> None:
    colour = STAND_IN["policy" if first else "variant"]
    axes.plot([cost, cost], [success.low, success.high], color=colour, linewidth=1.4)
    axes.plot([cost], [success.rate], "o", color=colour, markersize=7 if first else 5)
    axes.annotate(
        entry.variant, (cost, success.rate), (5, 4), textcoords="offset points", fontsize=8, color=STAND_IN["ink"]
    )


def _task_view(task: str, entries: Sequence[Entry]) -> dict[str, Any]:
    controls = list(dict.fromkeys(name for entry in entries for name in entry.controls))
    drawn, against = bars(entries), success_against_cost(entries)
    return {
        "name": task,
        "reference": entries[0].variant,
        "controls": [name.replace("_", " ") for name in controls],
        "bars": Markup(drawn) if drawn else None,
        "cost": Markup(against) if against else None,
        "rows": [_row(entry, controls) for entry in entries],
    }


def _row(entry: Entry, controls: Sequence[str]) -> dict[str, Any]:
    success, d, cost = entry.success, entry.difference, entry.cost
    return {
        "variant": entry.variant,
        "seeds": str(len(entry.seeds)),
        "rate": percent_text(success),
        "interval": f"{100 * success.low:.1f} to {100 * success.high:.1f} %" if success else "",
        "difference": points_text(d.difference) if d else NONE,
        "difference_interval": f"{points_text(d.low)} to {points_text(d.high)}" if d else "",
        "controls": [percent_text(entry.controls.get(name)) for name in controls],
        "box_iou": NONE if entry.box_iou is None else f"{entry.box_iou:.2f}",
        "parameters": NONE if cost is None else f"{cost.parameters / 1e6:.2f} M",
        "flops": NONE if cost is None else f"{cost.flops / 1e6:.0f}",
        "speed": NONE if entry.samples_per_second is None else f"{entry.samples_per_second:.0f}",
        "latency": NONE if cost is None else f"{cost.latency_p50_ms:.1f}, {cost.latency_p99_ms:.1f}",
        "samples": f"{entry.samples:,}".replace(",", "\N{THIN SPACE}"),
    }
