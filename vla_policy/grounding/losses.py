"""The decoder's losses: of boxes, of the event's start and end, and of where in time queries attend to.

After Yang et al. 2022, section 3.4, with two differences from their published code. The divergence is taken from the
truth to the prediction: its gradient stays large where the prediction is confidently wrong. Guided attention counts
what queries within the event attend to outside it; theirs counts all that queries outside it attend to.

B batch, T frames, K tubes, M attention heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.policy import GroundingConfig
from vla_policy.grounding.boxes import iou_and_giou, location_target
from vla_policy.grounding.decoder import EventLogits, GroundingOutput
from vla_policy.layers import at_least_float32, masked_average


def grounding_loss(
    config: GroundingConfig, output: GroundingOutput, boxes: Tensor, visible: Tensor, event: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum, and the parts by name, detached.

    Args:
        boxes: (B, T, K, 4) true ones; visible: (B, T, K) bool; event: (B, T) bool.

    Boxes and location map count in visible frames, with `config.scope` "event" in those of the event alone. In all
    other frames the boxes may hold anything. Where no frame counts, both losses are zero.
    """
    counted = visible & event[..., None] if config.scope == "event" else visible
    boxes = torch.where(counted[..., None], boxes, 0.5)
    cross_entropy = -(location_target(boxes, output.grid) * F.log_softmax(output.tube_logits, dim=-1)).sum(-1)
    iou, giou = iou_and_giou(output.tubes, boxes)
    location = masked_average(cross_entropy, counted)
    off, apart = (output.tubes - boxes).abs().mean(-1), 1 - giou
    drawn = masked_average(config.l1_weight * off + config.giou_weight * apart, counted)
    total = config.location_weight * location + config.box_weight * drawn
    metrics = {"location": location, "box": drawn, "iou": masked_average(iou[:, -1], counted[:, -1])}
    if output.tube_visible is not None:
        visibility = F.binary_cross_entropy_with_logits(output.tube_visible, visible.to(output.tube_visible.dtype))
        total = total + config.visibility_weight * visibility
        metrics["visible"] = visibility
    if output.event is not None:
        interval, during = interval_loss(output.event, event, config.sigma), event_loss(output.event, event)
        total = total + config.interval_weight * (interval + config.event_weight * during)
        metrics |= {"interval": interval, "event": during}
    if config.attention_weight:
        maps = [weights for name, weights in output.attention.items() if name.startswith("decoder_time")]
        guided = torch.stack([guided_attention_loss(weights, event) for weights in maps]).mean() if maps else 0 * total
        total = total + config.attention_weight * guided
        metrics["guided"] = guided
    return total, {name: value.detach() for name, value in metrics.items()}


def bounds(event: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First and last frame of the event `(B,)`, and whether there is one `(B,)`, for `(B, T)` bool."""
    frames = event.shape[1]
    first = event.int().argmax(1)
    last = frames - 1 - event.flip(1).int().argmax(1)
    return first, last, event.any(1)


def interval_loss(predicted: EventLogits, event: Tensor, sigma: float) -> Tensor:
    """`KL(truth || predicted)` of start and of end, added; mean over the samples whose frames hold any of the event.

    The truth is a Gaussian around the true frame, sampled at the frames and normalised.
    """
    first, last, there = bounds(event)
    times = torch.arange(event.shape[1], device=event.device)
    total = torch.zeros(len(event), device=event.device)
    for true, logits in ((first, predicted.start), (last, predicted.end)):
        truth = (-0.5 * ((times - true[:, None]) / sigma) ** 2).softmax(-1)
        total = total + F.kl_div(logits.log_softmax(-1), truth, reduction="none").sum(-1)
    return masked_average(total, there)


def event_loss(predicted: EventLogits, event: Tensor) -> Tensor:
    """Binary cross-entropy of whether each frame is part of the event."""
    return F.binary_cross_entropy_with_logits(predicted.during, event.to(predicted.during.dtype))


def guided_attention_loss(weights_BMTT: Tensor, event: Tensor) -> Tensor:
    """`-log(1 - a)` of the attention `a` that queries within the event pay to frames outside it, mean over such pairs;
    zero if there are none.
    """
    attended = at_least_float32(weights_BMTT).mean(1)
    outside = event[:, :, None] & ~event[:, None, :]
    return masked_average(-torch.log((1 - attended).clamp(min=1e-6)), outside)
