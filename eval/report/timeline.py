"""A strip below the picture that says when: the event's predicted and true interval, and how sure the policy is of each
moment. Pure functions, drawn like `eval.report.overlay`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from eval.report.overlay import FAINT, INK, MUTED, PREDICTED_BOX, STRIP, TRUE_BOX, Frame, fit_text

ROW = 12  # pixels of one bar


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Over `steps` moments of an episode: predicted and true (first, last), and by moment the probability of being part
    of the event, as far as it is known. `confidence` of the predicted interval in [0, 1].
    """

    steps: int
    during: Sequence[float] = ()
    predicted: tuple[int, int] | None = None
    true: tuple[int, int] | None = None
    confidence: float | None = None


def draw_timeline(timeline: Timeline, now: int, width: int) -> Frame:
    """The strip at moment `now`, `(H, width, 3)` uint8 with both sides even; its height is the same for all moments.

    Raises:
        ValueError: the width is odd or there is no moment.
    """
    if width % 2 or timeline.steps < 1:
        raise ValueError(
            f"timeline: got width {width} and {timeline.steps} moments, expected an even width, one or more"
        )
    margin, label = max(4, width // 50), width // 5
    left, right = margin + label, width - margin
    strip = Image.new("RGB", (width, 2 * margin + 4 * ROW), STRIP)
    canvas = ImageDraw.Draw(strip)

    def place(moment: float) -> float:
        return left + (right - left) * moment / timeline.steps

    rows = (
        ("predicted", timeline.predicted, PREDICTED_BOX),
        ("true event", timeline.true, TRUE_BOX),
    )
    for i, (name, interval, colour) in enumerate(rows):
        top = margin + i * (ROW + 2)
        text, font = fit_text(name, label - 4, ROW - 1)
        canvas.text((margin, top + ROW / 2), text, fill=MUTED if interval else FAINT, font=font, anchor="lm")
        canvas.rectangle((left, top + 4, right, top + ROW - 4), fill=FAINT)
        if interval is not None:
            canvas.rectangle((place(interval[0]), top, place(interval[1] + 1), top + ROW - 1), fill=colour)
    top = margin + 2 * (ROW + 2)
    sure = "" if timeline.confidence is None else f"{100 * timeline.confidence:.0f} % sure"
    text, font = fit_text(sure, label - 4, ROW - 1)
    canvas.text((margin, top + ROW / 2), text, fill=MUTED, font=font, anchor="lm")
    for moment, probability in enumerate(timeline.during[: now + 1]):
        height = (2 * ROW - 6) * probability
        floor = top + 2 * ROW - 6
        canvas.rectangle((place(moment), floor - height, place(moment + 1), floor), fill=MUTED)
    at = place(now + 0.5)
    canvas.line([(at, margin), (at, top + 2 * ROW - 6)], fill=INK, width=2)
    return np.asarray(strip, dtype=np.uint8)
