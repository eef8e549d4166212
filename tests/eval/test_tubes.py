"""Tubes and their measures: cases worked by hand, and what must hold for all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from configs.evaluation import TubeRules
from eval.tubes import Tube, TubeScores, box_ious, summarise_tubes, temporal_iou, tube_iou
from vla_policy.contract import Aux

WHOLE = [0.5, 0.5, 0.4, 0.4]
HALF = [0.4, 0.5, 0.2, 0.4]  # the left half of it
AWAY = [0.1, 0.1, 0.1, 0.1]


def flags(text: str) -> np.ndarray:
    return np.array([c == "1" for c in text])


@pytest.mark.parametrize(("predicted", "true", "expected"), [
    ("01110", "01110", 1.0), ("11100", "00111", 1 / 5), ("11000", "00110", 0.0), ("11111", "01000", 1 / 5),
    ("00000", "01100", 0.0), ("00000", "00000", None),
])  # fmt: skip
def test_temporal_iou_by_hand(predicted: str, true: str, expected: float | None) -> None:
    assert temporal_iou(flags(predicted), flags(true)) == expected


@pytest.mark.parametrize(("boxes", "predicted", "true", "visible", "expected"), [
    ([WHOLE] * 4, "1111", "1111", "1111", 1.0),
    ([HALF] * 4, "1111", "1111", "1111", 0.5),
    # Two shared frames of four in all, one box right and one half right.
    ([AWAY, WHOLE, HALF, AWAY], "1110", "0111", "1111", (1.0 + 0.5) / 4),
    ([WHOLE] * 4, "1100", "0011", "1111", 0.0),
    # The hidden third frame counts on neither side.
    ([WHOLE, HALF, AWAY, WHOLE], "1111", "1111", "1101", (1.0 + 0.5 + 1.0) / 3),
    ([WHOLE] * 4, "0000", "0110", "1001", None),
])  # fmt: skip
def test_tube_iou_by_hand(
    boxes: list[list[float]], predicted: str, true: str, visible: str, expected: float | None
) -> None:
    got = tube_iou(flags(predicted), np.array(boxes), flags(true), np.array([WHOLE] * 4), flags(visible))
    assert got == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("seed", range(100))
def test_what_holds_for_all_tubes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, true, visible = rng.random((3, 6)) < rng.uniform(0.1, 1.0, (3, 1))
    boxes, true_boxes = rng.uniform(0.1, 0.9, (2, 6, 4))
    got = tube_iou(predicted, boxes, true, true_boxes, visible)
    assert got == tube_iou(true, true_boxes, predicted, boxes, visible)
    assert temporal_iou(predicted, true) == temporal_iou(true, predicted)
    if got is None:
        assert not ((predicted | true) & visible).any()
        return
    trimmed = temporal_iou(predicted & visible, true & visible)
    assert trimmed is not None
    assert 0 <= got <= trimmed + 1e-12 <= 1 + 2e-12  # boxes can only lose what time leaves
    if (true & visible).any():
        assert tube_iou(true, true_boxes, true, true_boxes, visible) == pytest.approx(1)


def test_box_ious_frame_by_frame() -> None:
    np.testing.assert_allclose(box_ious(np.array([WHOLE, HALF, AWAY]), np.array([WHOLE] * 3)), [1, 0.5, 0])


def test_means_over_episodes() -> None:
    scores = [
        TubeScores(temporal_iou=1.0, tube_iou=0.8, box_iou=0.9),
        TubeScores(temporal_iou=0.5, tube_iou=0.4, box_iou=0.5),
        TubeScores(temporal_iou=0.0, tube_iou=0.0, box_iou=0.1),
        TubeScores(temporal_iou=0.7, tube_iou=0.3, box_iou=0.5),  # not above 0.3
        TubeScores(tube_iou=0.5),  # of a policy that does not tell time, or without a visible frame in the event
        None,
        TubeScores(),
    ]
    found = summarise_tubes(scores)
    assert found is not None
    assert found.episodes == 5
    assert found.mean_temporal_iou == pytest.approx(2.2 / 4)
    assert found.mean_tube_iou == pytest.approx(2.0 / 5)
    assert (found.above_03, found.above_05) == (0.6, 0.2)
    assert found.mean_box_iou == pytest.approx(0.5)
    assert (found.gt_above_03, found.gt_above_05) == (0.75, 0.25)
    assert summarise_tubes([None]) is None
    silent = summarise_tubes([TubeScores(tube_iou=0.5)])
    assert silent is not None
    assert silent.mean_temporal_iou is None


def aux(start: int | None = None, end: int | None = None, during: float = 0.9, frames: int = 4) -> Aux:
    """What a policy says that is sure of a window's start and end."""
    boxes = torch.tensor([[[0.1 * (i + 1), 0.5, 0.1, 0.1] for i in range(frames)]])
    if start is None or end is None:
        return Aux(boxes=boxes)
    eye = torch.eye(frames)
    return Aux(
        boxes=boxes,
        start_logits=(0.97 * eye[start : start + 1] + 0.0075).log(),
        end_logits=(0.97 * eye[end : end + 1] + 0.0075).log(),
        during=torch.full((1, frames), during),
    )


class TestTube:
    def test_it_grows_by_the_newest_box(self) -> None:
        tube = Tube(ages=(6, 4, 2, 0))
        for step in (0, 2, 4):
            tube.add(step, aux())
        assert tube.steps == [0, 2, 4]
        np.testing.assert_allclose(tube.boxes, [[0.4, 0.5, 0.1, 0.1]] * 3)
        assert tube.interval == (0, 4)  # a policy that cannot tell takes all of it
        assert tube.confidence is None
        assert tube.during == []
        always = np.ones(3, dtype=bool)
        assert tube.scores(always, np.array(tube.boxes), always).temporal_iou is None

    def test_while_the_window_covers_the_episode_start_and_end_count(self) -> None:
        tube = Tube(ages=(6, 4, 2, 0))
        for step in range(7):
            tube.add(step, aux(1, 2))
        # Frames at 0, 2, 4, 6: from the second one to the end of the third one's time.
        assert tube.interval == (2, 5)
        assert tube.flags().tolist() == [False, False, True, True, True, True, False]
        assert tube.confidence == pytest.approx(0.9)

    def test_frames_need_not_be_evenly_apart(self) -> None:
        for first, last, interval in ((1, 2, (5, 7)), (0, 1, (0, 6)), (2, 3, (7, 8))):
            tube = Tube(ages=(8, 3, 1, 0))
            for step in range(9):
                tube.add(step, replace(aux(first, last), during=None))
            assert tube.interval == interval  # frames at 0, 5, 7, 8

    def test_in_gaps_of_an_uneven_window_events_would_be_lost(self) -> None:
        tube = Tube(ages=(8, 3, 1, 0))
        for step in range(9):
            tube.add(step, aux(0, 0, 0.9 if 1 <= step <= 3 else 0.1))
        assert tube.interval == (1, 3)

    def test_an_interval_between_two_decisions_has_a_confidence(self) -> None:
        tube = Tube(ages=(9, 6, 3, 0))
        for step in (0, 9):
            tube.add(step, aux(1, 2))
        assert tube.interval == (3, 8)
        assert not tube.flags().any()
        assert tube.confidence == pytest.approx(0.9775**2)

    def test_repetitions_of_the_first_frame_are_one(self) -> None:
        for first, last in ((0, 1), (0, 2), (1, 2)):
            tube = Tube(ages=(24, 18, 12, 6, 0))
            tube.add(8, aux(first, last, frames=5))
            assert tube.interval == (0, 1)  # frames at 0, 0, 0, 2, 8

    def test_before_the_start_the_window_holds_the_first_frame_several_times(self) -> None:
        tube = Tube(ages=(6, 4, 2, 0))
        tube.add(0, aux(0, 3))
        assert tube.interval == (0, 0)

    def test_after_that_the_longest_stretch_counts(self) -> None:
        tube = Tube(ages=(6, 4, 2, 0))
        for step, during in zip(range(0, 18, 2), (0.9, 0.1, 0.9, 0.8, 0.7, 0.2, 0.9, 0.1, 0.9), strict=True):
            tube.add(step, aux(1, 2, during))
        assert tube.interval == (4, 8)

    def test_where_no_frame_is_part_of_it_there_is_no_event(self) -> None:
        for last in (2, 40):
            tube = Tube(ages=(6, 4, 2, 0))
            for step in range(0, last, 2):
                tube.add(step, aux(1, 2, 0.2))
            assert tube.interval is None
            assert tube.confidence is None
            assert not tube.flags().any()

    def test_scores(self) -> None:
        tube = Tube(ages=(6, 4, 2, 0))
        for step in range(7):
            tube.add(step, aux(1, 2))
        true = np.array([t in (3, 4, 5, 6) for t in range(7)])
        right = np.array([[0.4, 0.5, 0.1, 0.1]] * 7)
        visible = np.array([t != 5 for t in range(7)])
        scores = tube.scores(true, right, visible)
        assert scores.temporal_iou == pytest.approx(3 / 5)
        assert scores.tube_iou == pytest.approx(2 / 4)
        assert scores.box_iou == pytest.approx(1)
        none = tube.scores(np.zeros(7, bool), right, visible)
        assert (none.temporal_iou, none.box_iou) == (0, None)

    def test_start_and_end_alone_tell_the_interval(self) -> None:
        tube = Tube(ages=(6, 4, 2, 0))
        for step in range(0, 13, 2):  # the window has long left the first step behind
            tube.add(step, replace(aux(1, 2), during=None))
        assert tube.tells_time
        assert tube.interval == (8, 11)  # frames at 6, 8, 10, 12
        assert tube.confidence == pytest.approx(0.9775**2)

    def test_clips_are_read_as_one(self) -> None:
        """Three frames and two, of which each stands for two steps; the end is in the second clip."""
        tube = Tube(ages=(4, 2, 0))
        first, second = (aux(0, 0, frames=n) for n in (3, 2))
        first = replace(first, start_logits=torch.tensor([[0.0, 5, 0]]), end_logits=torch.zeros(1, 3), during=None)
        second = replace(second, start_logits=torch.zeros(1, 2), end_logits=torch.tensor([[6.0, 0]]), during=None)
        tube.read([first, second], 9, 2)
        assert tube.steps == list(range(9))
        np.testing.assert_allclose(np.array(tube.boxes)[:, 0], [0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.1, 0.1, 0.2], atol=1e-6)
        assert tube.interval == (2, 7)
        shorter = Tube(ages=(4, 2, 0), rules=TubeRules(end="plus_one"))
        shorter.read([first, second], 9, 2)
        assert shorter.interval == (2, 6)


@pytest.mark.parametrize("seed", range(20))
def test_by_the_published_rules_the_numbers_are_the_published_evaluators(seed: int) -> None:
    """Their sums over ids of frames, put together in the plainest way: the end is excluded, hidden frames count in the
    union, and nothing to compare is worth 0.
    """
    rules = TubeRules(end="plus_one", hidden="counted", empty="zero")
    rng = np.random.default_rng(seed)
    count = 12
    (s, e), (gs, ge) = (sorted(rng.choice(count + 1, 2, replace=False)) for _ in range(2))
    steps, visible = np.arange(count), rng.random(count) < 0.8
    boxes, true_boxes = (np.concatenate([rng.uniform(0.3, 0.7, (count, 2)), np.full((count, 2), 0.3)], 1) for _ in "ab")
    inside, true = (steps >= s) & (steps < e), (steps >= gs) & (steps < ge)
    shared = max(min(e, ge) - max(s, gs), 0)
    assert temporal_iou(inside, true, rules) == pytest.approx(shared / ((e - s) + (ge - gs) - shared))
    union = [t for t in steps if s <= t < e or gs <= t < ge]
    overlap = {t: box_ious(boxes[t : t + 1], true_boxes[t : t + 1])[0] for t in steps}
    total = sum(overlap[t] for t in steps if max(s, gs) <= t < min(e, ge) and visible[t])
    assert tube_iou(inside, boxes, true, true_boxes, visible, rules) == pytest.approx(total / len(union), abs=1e-12)
    none = np.zeros(count, bool)
    assert (temporal_iou(none, none, rules), tube_iou(none, boxes, none, true_boxes, visible, rules)) == (0, 0)
