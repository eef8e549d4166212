"""Configuration of the grounding decoder."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from configs.checks import check_kinds, check_least


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
        box_weight: weight of the boxes' loss, in which L1 (a mean over the four numbers) counts `l1_weight` and GIoU
            `giou_weight`.
        interval_weight: weight of start, end and, times `event_weight`, of whether frames are part of the event; with 0
            the decoder does not predict the event.
        visibility_weight: weight of whether the target is visible, in all frames; with 0 the decoder does not predict
            it. Where it does, an action head that reads the queries knows which boxes it can rely on.
        sigma: standard deviation, in frames, of the Gaussian around the true start and end.
        attention_weight: weight of the guided attention: queries within the event should not attend to frames outside
            it.
        scope: boxes are learned within the event, as in the paper, or wherever the target is "visible".
        feeds: what the action head reads: the decoder's query and boxes beside the fusion's pooled tokens, or the
            pooled tokens alone.
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
    sigma: float = 1.0
    attention_weight: float = 0.0
    scope: Literal["event", "visible"] = "event"
    feeds: Literal["queries", "pooled"] = "queries"

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
