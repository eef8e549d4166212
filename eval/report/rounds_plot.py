"""Success against labels of the expert, as a picture: rounds of DAgger beside cloning."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from eval.rounds import Success

COLOURS = ("#c2410c", "#475569", "#0f766e")
# Any: matplotlib types the keys as one closed set of literals, which differs between its versions.
STYLE: Any = {"font.family": "DejaVu Sans", "font.size": 11, "axes.spines.top": False, "axes.spines.right": False}


def write_rounds_plot(path: Path, curves: Mapping[str, Sequence[tuple[int, Success]]]) -> Path:
    """Write the PNG file, whole or not at all.

    Args:
        curves: by name, labels and success of each point, drawn with its interval.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        for (name, points), colour in zip(curves.items(), COLOURS, strict=False):
            labels = [count for count, _ in points]
            rates = [100 * success.rate for _, success in points]
            below = [100 * (success.rate - success.low) for _, success in points]
            above = [100 * (success.high - success.rate) for _, success in points]
            axes.errorbar(labels, rates, yerr=(below, above), marker="o", capsize=3, color=colour, label=name)
        axes.set_xlabel("states labelled by the expert")
        axes.set_ylabel("success (%)")
        axes.set_xlim(left=0)
        axes.set_ylim(-2, 102)
        axes.grid(alpha=0.3)
        figure.legend(frameon=False, loc="outside upper left", ncols=len(curves))
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            figure.savefig(unfinished, format="png")
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    return path
