"""Tubes: a box in every frame of an interval, predicted and true, and how well they agree.

The measures are those for untrimmed videos (Yang et al. 2022, section 4.1, after Zhang et al. 2020). With S_i the
frames that both intervals hold and S_u those that at least one does, `tIoU = |S_i| / |S_u|` and
`vIoU = 1 / |S_u| · Σ_{t in S_i} IoU(box_t, true box_t)`. A mean over episodes has an m in front, and vIoU@R is the
share of episodes above R. With the true interval in place of the predicted one, vIoU is called gt_vIoU: the mean box
IoU over the event. Frames in which the target is hidden have no true box: vIoU leaves them out of both sets.

On the same boxes and intervals the published evaluators of VidSTG and HC-STVG give the same numbers, but for three
rules; `configs.evaluation.TubeRules` names and selects them.

K frames of an episode: in evaluations those in which the policy decided, every second control step by default.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from configs.evaluation import TubeRules
from configs.policy import evenly_apart
from eval.statistics import mean_known
from vla_policy.contract import Aux
from vla_policy.grounding.boxes import iou_and_giou
from vla_policy.grounding.interval import best_interval
from vla_policy.policy import VLAPolicy

Flags = NDArray[np.bool_]
Boxes = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class TubeScores:
    """Of one episode, each in [0, 1]: tIoU, vIoU, and the mean box IoU over the visible frames of the true interval;
    None where there is nothing to compare with. A policy that does not tell time has no tIoU, and takes every frame for
    part of the tube.
    """

    temporal_iou: float | None = None
    tube_iou: float | None = None
    box_iou: float | None = None


@dataclass(frozen=True, kw_only=True)
class TubeSummary:
    """Of a condition, each in [0, 1]: m_tIoU, m_vIoU, vIoU@0.3, vIoU@0.5, and of gt_vIoU the same three."""

    episodes: int
    mean_temporal_iou: float | None
    mean_tube_iou: float
    above_03: float
    above_05: float
    mean_box_iou: float | None
    gt_above_03: float | None = None
    gt_above_05: float | None = None


RULES = TubeRules()


def temporal_iou(predicted: Flags, true: Flags, rules: TubeRules = RULES) -> float | None:
    """tIoU of two sets of frames, `(K,)` each; None, or 0 by the published rule, if both are empty."""
    union = np.count_nonzero(predicted | true)
    return float(np.count_nonzero(predicted & true) / union) if union else _empty(rules)


def tube_iou(
    predicted: Flags, boxes: Boxes, true: Flags, true_boxes: Boxes, visible: Flags, rules: TubeRules = RULES
) -> float | None:
    """vIoU; flags `(K,)`, boxes `(K, 4)` as (cx, cy, w, h) in [0, 1]. None, or 0 by the published rule, if no frame
    that counts is in either set.
    """
    counted = visible if rules.hidden == "dropped" else np.ones_like(visible)
    union = np.count_nonzero((predicted | true) & counted)
    shared = predicted & true & visible
    return float(box_ious(boxes, true_boxes)[shared].sum() / union) if union else _empty(rules)


def _empty(rules: TubeRules) -> float | None:
    return 0.0 if rules.empty == "zero" else None


def box_ious(boxes: Boxes, true_boxes: Boxes) -> NDArray[np.float64]:
    """IoU of boxes, frame by frame, `(K,)`."""
    found = iou_and_giou(torch.from_numpy(np.asarray(boxes, float)), torch.from_numpy(np.asarray(true_boxes, float)))[0]
    return found.numpy()


def summarise_tubes(scores: Sequence[TubeScores | None]) -> TubeSummary | None:
    """Means over the episodes that have the measure; None if none has a vIoU."""
    known = [s for s in scores if s is not None and s.tube_iou is not None]
    if not known:
        return None
    tubes = [s.tube_iou for s in known if s.tube_iou is not None]
    ious = [s.box_iou for s in known if s.box_iou is not None]
    return TubeSummary(
        episodes=len(known),
        mean_temporal_iou=mean_known([s.temporal_iou for s in known]),
        mean_tube_iou=math.fsum(tubes) / len(tubes),
        above_03=sum(v > 0.3 for v in tubes) / len(tubes),
        above_05=sum(v > 0.5 for v in tubes) / len(tubes),
        mean_box_iou=mean_known([s.box_iou for s in known]),
        gt_above_03=mean_known([float(v > 0.3) for v in ious]),
        gt_above_05=mean_known([float(v > 0.5) for v in ious]),
    )


@dataclass(kw_only=True)
class Tube:
    """The tube of an episode so far, as a policy sees it coming: at each moment the box of the newest frame, and the
    probabilities that the frame is part of the event and that the target is visible in it, all kept as they were said
    then. Of a policy that does not tell one of the two, those are missing. `read` gives what a policy says that has
    seen all of it.

    Args:
        ages: how many control steps before now each frame of the policy's window was seen, oldest first, `(T,)`.
        rules: where an interval ends.
    """

    ages: tuple[int, ...]
    rules: TubeRules = RULES
    steps: list[int] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    during: list[float] = field(default_factory=list)
    visible: list[float] = field(default_factory=list)
    _interval: tuple[int, int] | None = None  # first and last control step
    _certainty: float | None = None  # of this interval

    def add(self, step: int, aux: Aux, row: int = 0) -> None:
        """What the policy says at a control step; `row` of its batch."""
        assert aux.boxes is not None
        self.steps.append(step)
        self.boxes.append(aux.boxes[row, -1].float().cpu().tolist())
        if aux.during is not None:
            self.during.append(float(aux.during[row, -1]))
        if aux.visible is not None:
            self.visible.append(float(aux.visible[row, -1]))
        self._interval = None
        # What tells of each frame whether it is part of the event, goes on to do so where the window has moved on, or
        # has gaps in which an event may begin and end.
        whole = evenly_apart(self.ages) and step <= self.ages[0]
        if aux.start_logits is not None and aux.end_logits is not None and (whole or not self.during):
            frames = [step - age for age in self.ages[-aux.start_logits.shape[1] :]]
            self._take(aux.start_logits[row], aux.end_logits[row], frames, step)

    def read(self, aux: Sequence[Aux], steps: int, stride: int) -> None:
        """What a policy says of clips that follow each other, as one tube over so many control steps. The first frame
        is at step 0, one follows every `stride` steps, and each stands for the steps up to the next one. Start and end
        are found over all clips.
        """

        def joined(name: str) -> torch.Tensor | None:
            parts = [getattr(each, name) for each in aux]
            return None if parts[0] is None else torch.cat([part[0].float().cpu() for part in parts])

        of_step = [step // stride for step in range(steps)]
        self.steps = list(range(steps))
        for name in ("boxes", "during", "visible"):
            values = joined(name)
            setattr(self, name, [] if values is None else values[of_step].tolist())
        start, end = joined("start_logits"), joined("end_logits")
        if start is not None and end is not None:
            self._take(start, end, range(0, len(start) * stride, stride), steps - 1)

    def _take(self, start: torch.Tensor, end: torch.Tensor, frames: Sequence[int], newest: int) -> None:
        """The interval from start and end over frames at these steps, the newest step being this one."""
        first, last, product = best_interval(start[None].float().cpu(), end[None].float().cpu())
        begin, stop = (max(frames[int(i)], 0) for i in (first, last))  # before the episode, its first picture is shown
        if self.rules.end == "next_frame":
            stop = next((frame for frame in frames if frame > stop), newest + 1) - 1
        self._interval, self._certainty = (begin, min(stop, newest)), float(product)

    @property
    def tells_time(self) -> bool:
        """Whether the policy says when the event is."""
        return bool(self.during) or self._interval is not None

    @property
    def interval(self) -> tuple[int, int] | None:
        """First and last control step of the event. While the policy's window covers the whole episode evenly, its
        start and end; else the longest stretch of frames that it took for part of it. None where it sees no event;
        everything where it does not tell.
        """
        if not self.tells_time:
            return (self.steps[0], self.steps[-1]) if self.steps else None
        if self._interval is not None:
            # A softmax begins and ends the event somewhere, also where there is none.
            return self._interval if not self.during or max(self.during) > 0.5 else None
        runs: list[list[int]] = []
        for i, probability in enumerate(self.during):
            if probability > 0.5:
                if runs and runs[-1][-1] == i - 1:
                    runs[-1].append(i)
                else:
                    runs.append([i])
        longest = max(runs, key=len, default=None)
        return None if longest is None else (self.steps[longest[0]], self.steps[longest[-1]])

    @property
    def confidence(self) -> float | None:
        """Probability that the interval's moments are part of the event, as it was said then, their mean; of a policy
        that tells start and end alone, their probabilities' product. None if there is no interval, or the policy does
        not tell.
        """
        if not self.tells_time or self.interval is None:
            return None
        held = np.array(self.during)[self.flags()] if self.during else np.empty(0)
        return float(held.mean()) if held.size else self._certainty

    def flags(self) -> Flags:
        """Which of the moments the interval holds, `(K,)`. One between two of them is of none."""
        steps, interval = np.array(self.steps), self.interval
        if interval is None:
            return np.zeros(len(steps), dtype=bool)
        return (steps >= interval[0]) & (steps <= interval[1])

    def scores(self, true: Flags, true_boxes: Boxes, visible: Flags) -> TubeScores:
        """Compare with the truth at the same moments, `(K,)`, `(K, 4)`, `(K,)`."""
        predicted, boxes = self.flags(), np.array(self.boxes)
        return TubeScores(
            temporal_iou=temporal_iou(predicted, true, self.rules) if self.tells_time else None,
            tube_iou=tube_iou(predicted, boxes, true, true_boxes, visible, self.rules),
            box_iou=tube_iou(true, boxes, true, true_boxes, visible, self.rules),
        )


def empty_tube(policy: VLAPolicy, rules: TubeRules = RULES) -> Tube:
    """A tube for what a policy is going to see."""
    return Tube(ages=policy.config.ages, rules=rules)
