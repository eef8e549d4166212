"""From a matplotlib figure to an inline SVG of our pages.

Text stays text and takes the page's font. Colours are CSS variables of the page (`--ink`, ...), so one picture serves
light and dark mode: matplotlib draws with stand-ins that `to_svg` replaces.
"""

from __future__ import annotations

import hashlib
import io
import re
from html import escape
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_VARIABLES = ("ink", "muted", "grid", "policy", "variant", "control", "expert", "extra")
STAND_IN = {name: f"#0102{index + 16:02x}" for index, name in enumerate(_VARIABLES)}
# Any: matplotlib types the keys as one closed set of literals, which differs between its versions.
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.edgecolor": STAND_IN["grid"],
    "axes.labelcolor": STAND_IN["muted"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": STAND_IN["grid"],
    "grid.linewidth": 0.7,
    "xtick.color": STAND_IN["grid"],
    "ytick.color": STAND_IN["grid"],
    "xtick.labelcolor": STAND_IN["muted"],
    "ytick.labelcolor": STAND_IN["muted"],
    "text.color": STAND_IN["ink"],
    "legend.frameon": False,
    "legend.labelcolor": STAND_IN["ink"],
    "legend.fontsize": 10.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.unicode_minus": False,
}
_WIDTH = 5.8  # inches at 72 to the inch: about 418 CSS pixels before the page scales it


def new_figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), dpi=72, layout="constrained")
    return figure, figure.add_subplot()


def to_svg(figure: Figure, title: str) -> str:
    """The figure as an <svg> element for an HTML page: scalable, titled, in the page's font and colours."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    for name, stand_in in STAND_IN.items():
        body = body.replace(stand_in, f"var(--{name})")
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    # Several figures share one page: groups need no ids, what is referred to gets a prefix of its own.
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    prefix = "f" + hashlib.sha1(body.encode(), usedforsecurity=False).hexdigest()[:8]
    for attribute in (r'(\bid=")', r"(url\(#)", r'(href="#)'):
        body = re.sub(attribute, rf"\g<1>{prefix}-", body)
    body = body.replace("xlink:href", "href")
    return f'<svg class="plot" {box.group()} role="img" aria-label="{escape(title)}">{body}'.strip()


def standalone(svg: str, colours: str) -> str:
    """A picture of `to_svg` as a file of its own, with the style sheet that gives its colours."""
    head = '<svg xmlns="http://www.w3.org/2000/svg"'
    font = "text { font-family: system-ui, sans-serif !important; }"
    opening, rest = svg.split(">", 1)
    return f"{opening.replace('<svg', head, 1)}><style>{colours}{font}</style>{rest}\n"
