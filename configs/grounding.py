"""Configuration of the grounding decoder."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from configs.checks import check_kinds, check_least, check_shares


@dataclass(frozen=True, kw_only=True)
class GroundingConfig:
    """The decoder that finds the target in every frame, and the event that the instruction names.

    Args:
        things: what is found: the target, which the instruction names, and, of data that say so, the goal: where it is
            to go. One tube of boxes each.
        cameras: where: in the first camera's pictures, or in those of all. Two cameras that see a thing tell how far
            away it is.
        layers: decoder blocks.
        norm: layer norm before each part of a block, or after it as in the paper.
        location_weight: weight of the cross-entropy of the location map.
        box_weight: weight of the boxes' loss, in which L1 counts `l1_weight` and GIoU `giou_weight`.
        l1: the "mean" over a box's four numbers, or their "sum" as in the published code.
        interval_weight: weight of start, end and, times `event_weight`, of whether frames are part of the event; with 0
            the decoder does not predict the event.
        visibility_weight: weight of whether the target is visible, in all frames; with 0 the decoder does not predict
            it. Where it does, an action head that reads the queries knows which boxes it can rely on.
        sigma: standard deviation, in frames, of the Gaussian around the true start and end.
        divergence: of start and end: "from_prediction" is `KL(prediction || truth)` with 1e-6 on both sides and a mean
            over the frames, as published; "from_truth" is `KL(truth || prediction)`, about T times as large, whose
            gradient stays large where the prediction is confidently wrong. The first finds events better: see
            docs/tubedetr.md.
        attention_weight: weight of the guided attention.
        guided: "inside": queries within the event should not attend to frames outside it; "outside": queries outside
            the event should attend to nothing much, as published.
        scope: boxes are learned within the event, as in the paper, or wherever the target is "visible".
        feeds: what the action head reads: the decoder's query and boxes beside the fusion's pooled tokens, or the
            pooled tokens alone.
        extras: what is added to the paper's decoder: queries begin with the pooled tokens, a location map gives each
            box a place to begin from, the newest frames get the fusion's tokens, start and end see the steps of the
            box, and each frame says whether it is part of the event. False takes all of it away, as in the paper.
        positions: what tells times and places apart: added "once", to what is encoded; or, as in the paper, to queries
            and keys in "each_layer", with queries that begin at zero and the published code's encodings.
        feed_ratio: hidden width of the feed-forward parts, as a multiple of the queries'; in the paper 8.
        dropout: probability with which the blocks drop attention and features in training; in the paper 0.1.
        head_dropout: the same within the start and end head without extras; in the paper 0.5.
        auxiliary: whether every block's queries are decoded and have the losses, as in the paper, or the last alone.
    """

    things: tuple[Literal["target", "goal"], ...] = ("target",)
    cameras: Literal["first", "all"] = "first"
    layers: int = 1
    norm: Literal["pre", "post"] = "pre"
    location_weight: float = 1.0
    box_weight: float = 1.0
    l1_weight: float = 5.0
    giou_weight: float = 1.0
    interval_weight: float = 0.0
    event_weight: float = 1.0
    visibility_weight: float = 0.0
    l1: Literal["mean", "sum"] = "mean"
    sigma: float = 1.0
    divergence: Literal["from_truth", "from_prediction"] = "from_prediction"
    attention_weight: float = 0.0
    guided: Literal["inside", "outside"] = "inside"
    scope: Literal["event", "visible"] = "event"
    feeds: Literal["queries", "pooled"] = "queries"
    extras: bool = True
    positions: Literal["once", "each_layer"] = "once"
    feed_ratio: float = 2.0
    dropout: float = 0.0
    head_dropout: float = 0.0
    auxiliary: bool = False

    def __post_init__(self) -> None:
        check_kinds("grounding", self)
        check_least("grounding", self, layers=1)
        if self.things not in (("target",), ("target", "goal")):
            raise ValueError(f"grounding.things {list(self.things)} must be [target] or [target, goal]")
        for item in fields(self):
            if item.name.endswith("_weight") and getattr(self, item.name) < 0:
                raise ValueError(f"grounding.{item.name} {getattr(self, item.name)} must be 0 or more")
        if self.sigma <= 0:
            raise ValueError(f"grounding.sigma {self.sigma} must be above 0 frames")
        check_shares("grounding", self, "dropout", "head_dropout")
        if self.feed_ratio <= 0:
            raise ValueError(f"grounding.feed_ratio {self.feed_ratio} must be above 0")
        if self.location_weight and not self.extras:
            raise ValueError(
                f"grounding.location_weight {self.location_weight} needs the location map, which is one of "
                "grounding.extras; set it to 0"
            )
        if self.head_dropout and self.extras:
            raise ValueError(
                f"grounding.head_dropout {self.head_dropout} is of the start and end head without grounding.extras; "
                "leave it out"
            )
