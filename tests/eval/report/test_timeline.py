"""The strip that says when: bars where the intervals are, a cursor at now, and nothing of the future."""

from __future__ import annotations

import numpy as np
import pytest

from eval.report.overlay import INK, MUTED, PREDICTED_BOX, TRUE_BOX
from eval.report.timeline import Timeline, draw_timeline

WIDTH, STEPS = 256, 20


def columns(strip: np.ndarray, colour: tuple[int, int, int]) -> set[int]:
    """The moments over which a colour is seen, as the strip places them."""
    left, right = 5 + WIDTH // 5, WIDTH - 5
    seen = np.flatnonzero((strip == np.array(colour)).all(-1).any(0))
    return {int((x - left) * STEPS / (right - left)) for x in seen if left <= x < right}


def test_intervals_are_drawn_where_they_are() -> None:
    timeline = Timeline(steps=STEPS, predicted=(4, 9), true=(6, 12))
    strip = draw_timeline(timeline, 19, WIDTH)
    assert columns(strip, PREDICTED_BOX) >= set(range(4, 10))
    assert columns(strip, PREDICTED_BOX) <= set(range(4, 11))
    assert columns(strip, TRUE_BOX) >= set(range(6, 13))
    assert not columns(draw_timeline(Timeline(steps=STEPS), 3, WIDTH), PREDICTED_BOX)


def test_the_cursor_moves_and_what_is_to_come_is_not_shown() -> None:
    timeline = Timeline(steps=STEPS, during=[0.9] * STEPS)
    early, late = draw_timeline(timeline, 3, WIDTH), draw_timeline(timeline, 15, WIDTH)
    assert max(columns(early, MUTED)) <= 4
    assert max(columns(late, MUTED)) >= 15
    assert columns(early, INK) <= {2, 3, 4}
    assert columns(late, INK) <= {14, 15, 16}


def test_the_size_never_changes() -> None:
    shapes = {
        draw_timeline(timeline, now, WIDTH).shape
        for now in (0, 19)
        for timeline in (Timeline(steps=STEPS), Timeline(steps=STEPS, predicted=(0, 19), confidence=0.5))
    }
    assert len(shapes) == 1
    assert all(side % 2 == 0 for side in shapes.pop()[:2])


@pytest.mark.parametrize(("width", "steps"), [(255, 10), (256, 0)])
def test_what_cannot_be_drawn_is_refused(width: int, steps: int) -> None:
    with pytest.raises(ValueError, match="expected an even width, one or more"):
        draw_timeline(Timeline(steps=steps), 0, width)
