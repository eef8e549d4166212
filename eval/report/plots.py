"""The report's plots as inline SVG. Pure functions from results to text; None where there is nothing to draw.

How they get the page's font and colours is in `eval.report.svg`.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from eval.report.svg import STAND_IN, STYLE, new_figure, to_svg
from eval.results import POLICY, ConditionResult

# Conditions that the policy should pass as well; all others but the expert take away something it needs.
VARIANTS = ("held_out_phrasing", "unseen_combination")

TITLE_WIDTH = 28  # characters of a line beside a bar: more would leave no room for the bars


def condition_role(name: str) -> str:
    """Which of the page's colours stands for a condition."""
    if name in (POLICY, "expert"):
        return name
    return "variant" if name in VARIANTS else "control"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One rate to draw: its name, interval, colour by the name that `svg.py` knows, and rates it was joined from."""

    title: str
    rate: float
    low: float
    high: float
    colour: str
    bold: bool = False
    parts: Sequence[float] = ()


def rate_bars(bars: Sequence[Bar], description: str) -> str | None:
    """Rates as bars with their intervals, from the top; parts as dots."""
    if not bars:
        return None
    with matplotlib.rc_context(STYLE):
        titles = [textwrap.fill(bar.title, TITLE_WIDTH) for bar in bars]
        lines = max(title.count("\n") + 1 for title in titles)
        figure, axes = new_figure(max(0.36, 0.19 * lines) * len(bars) + 0.75)
        for row, bar in enumerate(bars):
            axes.barh(row, bar.rate, height=0.58, color=STAND_IN[bar.colour], linewidth=0)
            axes.plot([bar.low, bar.high], [row, row], color=STAND_IN["ink"], linewidth=1.4)
            for end in (bar.low, bar.high):
                axes.plot([end, end], [row - 0.14, row + 0.14], color=STAND_IN["ink"], linewidth=1.4)
            if len(bar.parts) > 1:
                places = np.linspace(-0.18, 0.18, len(bar.parts)) + row
                axes.plot(bar.parts, places, "o", color=STAND_IN["control"], markersize=4)
            axes.text(
                1.04,
                row,
                f"{100 * bar.rate:.1f} %",
                va="center",
                fontweight="bold" if bar.bold else "normal",
                transform=axes.get_yaxis_transform(),
            )
        axes.set_yticks(range(len(bars)), titles)
        axes.tick_params(axis="y", length=0, labelcolor=STAND_IN["ink"])
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_xlim(0.0, 1.0)
        axes.set_xticks(np.linspace(0.0, 1.0, 6), [f"{share} %" for share in range(0, 101, 20)])
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        return to_svg(figure, description)


def success_bars(conditions: Mapping[str, ConditionResult], titles: Mapping[str, str]) -> str | None:
    """Success rates as bars with 95 % intervals, in the order given; leaves out conditions without episodes."""
    bars = [
        Bar(
            title=titles[name],
            rate=c.success_rate,
            low=c.low,
            high=c.high,
            colour=condition_role(name),
            bold=name == POLICY,
        )
        for name, c in conditions.items()
        if c.success_rate is not None
    ]
    return rate_bars(bars, "Success rate of each condition with its 95 % interval")


def error_over_time(
    conditions: Mapping[str, ConditionResult],
    titles: Mapping[str, str],
    *,
    control_hz: float | None = None,
    tolerance_m: float | None = None,
) -> str | None:
    """Median distance to the target with its quartiles; shuffled, frozen and expert for comparison."""
    drawn = [POLICY, "shuffled_instruction", "frozen_frames", "expert"]
    if POLICY not in conditions and conditions:
        drawn = [next(iter(conditions)), *drawn]
    styles = {
        "shuffled_instruction": ("control", (0, (5, 2))),
        "frozen_frames": ("extra", (0, (1, 1.5))),
        "expert": ("expert", (0, (6, 2, 1, 2))),
    }
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(3.4)
        empty = True
        for name in drawn:
            errors = error_matrix(conditions[name]) if name in conditions else None
            if errors is None:
                continue
            time = np.arange(1, errors.shape[1] + 1) / (control_hz or 1.0)
            low, median, high = np.quantile(100.0 * errors, [0.25, 0.5, 0.75], axis=0)
            if empty:  # the condition that the plot is about
                colour = STAND_IN[condition_role(name)]
                axes.fill_between(time, low, high, color=colour, alpha=0.22, linewidth=0)
                axes.plot(time, median, color=colour, linewidth=2.2, label=titles[name])
                empty = False
            else:
                variable, dashes = styles[name]
                axes.plot(
                    time,
                    median,
                    color=STAND_IN[variable],
                    linewidth=1.8,
                    linestyle=dashes,
                    label=titles[name],
                )
        if empty:
            return None
        if tolerance_m is not None:
            axes.axhline(100.0 * tolerance_m, color=STAND_IN["ink"], linewidth=0.9)
            axes.annotate(
                "tolerance",
                (1.0, 100.0 * tolerance_m),
                xycoords=axes.get_yaxis_transform(),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                fontsize=10,
                color=STAND_IN["muted"],
            )
        axes.set_xlabel("time (s)" if control_hz else "control step")
        axes.set_ylabel("distance to target (cm)")
        axes.set_ylim(bottom=0.0)
        axes.margins(x=0.0)
        axes.set_xlim(left=0.0)
        legend_above(axes, columns=2)
        return to_svg(figure, "Distance between gripper and target over the episode, median and quartiles")


def error_matrix(condition: ConditionResult) -> NDArray[np.float64] | None:
    """(episodes, steps) distances in metres of the valid episodes that recorded any.

    An episode that ended early keeps its last distance: leaving it out from there on would show, at late
    times, only those that had not yet succeeded.
    """
    rows = [episode.errors_m for episode in condition.results if episode.valid and episode.errors_m]
    if not rows:
        return None
    steps = max(len(row) for row in rows)
    return np.array([[*row, *[row[-1]] * (steps - len(row))] for row in rows], dtype=np.float64)


def learning_curve_plot(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Training losses over steps on a logarithmic scale, with minutes of training along the upper edge.

    Drawn are the columns named `loss`, `*_loss` or `loss*`, five at most, `loss` first; other columns, and
    values that are missing, not finite or not positive, are passed over.
    """
    names = [key for row in rows for key in row if key.startswith("loss") or key.endswith("_loss")]
    unique = sorted(dict.fromkeys(names), key=lambda key: key != "loss")[:5]
    curves = {name: curve for name in unique if len(curve := _curve(rows, name)) > 1}
    if not curves:
        return None
    variables = ("policy", "control", "expert", "extra", "variant")
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(3.2)
        for variable, (name, curve) in zip(variables, curves.items(), strict=False):
            colour = STAND_IN[variable]
            width = 2.2 if name == "loss" else 1.5
            window = max(1, len(curve) // 50)
            if window > 1:
                thin = curve[:: max(1, len(curve) // 400)]
                axes.plot(thin[:, 0], thin[:, 1], color=colour, alpha=0.3, linewidth=0.7)
            smooth = _running_mean(curve, window)
            axes.plot(smooth[:, 0], smooth[:, 1], color=colour, linewidth=width, label=name.replace("_", " "))
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("training step")
        axes.margins(x=0.01)
        seconds = _curve(rows, "seconds")
        if len(seconds) > 1 and (np.diff(seconds[:, 0]) > 0).all() and (np.diff(seconds[:, 1]) > 0).all():
            _minutes_above(axes, seconds)
        legend_above(axes, columns=3)
        return to_svg(figure, "Training loss over training steps")


def _curve(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    points = [(row.get("step"), row.get(name)) for row in rows]
    kept = [(x, y) for x, y in points if isinstance(x, int | float) and _positive(y)]
    return np.array(kept, dtype=np.float64).reshape(-1, 2)


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def _running_mean(curve: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    sums = np.cumsum(np.vstack([np.zeros(2), curve]), axis=0)
    return np.asarray((sums[window:] - sums[:-window]) / window, dtype=np.float64)


def _minutes_above(axes: Axes, seconds: NDArray[np.float64]) -> None:
    steps, minutes = seconds[:, 0], seconds[:, 1] / 60.0
    longest = float(minutes[-1])
    spacings = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120)
    spacing = next((spacing for spacing in spacings if longest / spacing <= 8), longest / 4)
    ticks = np.arange(spacing, longest + 1e-9, spacing)
    upper = axes.secondary_xaxis("top")
    upper.set_xticks(np.interp(ticks, minutes, steps), [f"{tick:g}" for tick in ticks])
    upper.set_xlabel("minutes of training")
    upper.spines["top"].set_visible(False)


def legend_above(axes: Axes, columns: int) -> None:
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.legend(loc="outside upper left", ncols=columns, handlelength=2.4, columnspacing=1.4, borderaxespad=0.2)
