"""The decoder's losses: of boxes, of the event's start and end, and of where in time queries attend to.

After Yang et al. 2022, section 3.4. Two of them differ by default from the published code; `GroundingConfig` selects
theirs and ours by `l1`, `divergence` and `guided`.

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

EPSILON = 1e-6  # of the published code: beside probabilities in its logarithms


def grounding_loss(
    config: GroundingConfig,
    output: GroundingOutput,
    boxes: Tensor,
    visible: Tensor,
    event: Tensor,
    frames: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum over the blocks that are decoded, and the last one's parts by name, detached.

    Args:
        boxes: (B, T, K, 4) true ones; visible: (B, T, K) bool; event: (B, T) bool.
        frames: (B, T) bool, False for frames that are padding; None if none is.

    Boxes and location map count in visible frames, with `config.scope` "event" in those of the event alone. In all
    other frames the boxes may hold anything. Where no frame counts, both losses are zero.
    """
    if frames is not None:
        visible, event = visible & frames[..., None], event & frames
    counted = visible & event[..., None] if config.scope == "event" else visible
    boxes = torch.where(counted[..., None], boxes, 0.5)
    total, metrics = _decoded_loss(config, output, boxes, visible, event, counted, frames)
    for earlier in output.earlier:
        total = total + _decoded_loss(config, earlier, boxes, visible, event, counted, frames)[0]
    if config.attention_weight:
        guide = guided_attention_loss if config.guided == "inside" else published_guided_attention_loss
        maps = [weights for name, weights in output.attention.items() if name.startswith("decoder_time")]
        each = torch.stack([guide(weights, event, frames) for weights in maps]) if maps else 0 * total[None]
        guided = each.sum() if config.auxiliary else each.mean()
        total = total + config.attention_weight * guided
        metrics["guided"] = guided
    return total, {name: value.detach() for name, value in metrics.items()}


def _decoded_loss(
    config: GroundingConfig,
    output: GroundingOutput,
    boxes: Tensor,
    visible: Tensor,
    event: Tensor,
    counted: Tensor,
    frames: Tensor | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Of what one block's queries say: boxes, visibility and event."""
    metrics: dict[str, Tensor] = {}
    if output.tube_logits is not None:
        cross_entropy = -(location_target(boxes, output.grid) * F.log_softmax(output.tube_logits, dim=-1)).sum(-1)
        metrics["location"] = masked_average(cross_entropy, counted)
    iou, giou = iou_and_giou(output.tubes, boxes)
    off = (output.tubes - boxes).abs()
    off, apart = off.mean(-1) if config.l1 == "mean" else off.sum(-1), 1 - giou
    drawn = masked_average(config.l1_weight * off + config.giou_weight * apart, counted)
    total = config.box_weight * drawn
    if "location" in metrics:
        total = config.location_weight * metrics["location"] + total
    metrics |= {"box": drawn, "iou": masked_average(iou[:, -1], counted[:, -1])}
    if output.tube_visible is not None:
        visibility = _cross_entropy(output.tube_visible, visible, None if frames is None else frames[..., None])
        total = total + config.visibility_weight * visibility
        metrics["visible"] = visibility
    if output.event is not None:
        divergence = interval_loss if config.divergence == "from_truth" else published_interval_loss
        interval = divergence(output.event, event, config.sigma, frames)
        metrics["interval"] = interval
        if output.event.during is not None:
            during = event_loss(output.event.during, event, frames)
            interval = interval + config.event_weight * during
            metrics["event"] = during
        total = total + config.interval_weight * interval
    return total, metrics


def bounds(event: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First and last frame of the event `(B,)`, and whether there is one `(B,)`, for `(B, T)` bool."""
    frames = event.shape[1]
    first = event.int().argmax(1)
    last = frames - 1 - event.flip(1).int().argmax(1)
    return first, last, event.any(1)


def interval_loss(predicted: EventLogits, event: Tensor, sigma: float, frames: Tensor | None = None) -> Tensor:
    """`KL(truth || predicted)` of start and of end, added; mean over the samples whose frames hold any of the event.

    The truth is a Gaussian around the true frame, sampled at the frames and normalised.
    """
    first, last, there = bounds(event)
    total = torch.zeros(len(event), device=event.device)
    for true, logits in ((first, predicted.start), (last, predicted.end)):
        truth = only(_gaussian(true, event.shape[1], sigma), frames).softmax(-1)
        total = total + F.kl_div(only(logits, frames).log_softmax(-1), truth, reduction="none").sum(-1)
    return masked_average(total, there)


def published_interval_loss(
    predicted: EventLogits, event: Tensor, sigma: float, frames: Tensor | None = None
) -> Tensor:
    """`KL(predicted || truth)` of start and of end as the published code has it, over the samples whose frames hold any
    of the event: `Σ_t p_t · log((p_t + ε) / q_t)`, with q the Gaussian plus ε, normalised over all T frames, and
    divided by T, padding included.
    """
    first, last, there = bounds(event)
    total = torch.zeros(len(event), device=event.device)
    for true, logits in ((first, predicted.start), (last, predicted.end)):
        truth = _gaussian(true, event.shape[1], sigma).exp() + EPSILON
        truth = truth / truth.sum(-1, keepdim=True)
        p = only(logits, frames).softmax(-1)
        total = total + (p * ((p + EPSILON) / truth).log()).mean(-1)
    return masked_average(total, there)


def _gaussian(true: Tensor, frames: int, sigma: float) -> Tensor:
    """Logarithm, up to a constant, of a Gaussian around the true frames `(B,)` at all T frames, `(B, T)`."""
    return -0.5 * ((torch.arange(frames, device=true.device) - true[:, None]) / sigma) ** 2


def only(logits: Tensor, frames: Tensor | None) -> Tensor:
    """Logits `(B, T)` of which those of padding get no probability."""
    return logits if frames is None else logits.masked_fill(~frames, torch.finfo(logits.dtype).min / 2)


def event_loss(during: Tensor, event: Tensor, frames: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of whether each frame is part of the event, from its logits."""
    return _cross_entropy(during, event, frames)


def _cross_entropy(logits: Tensor, truth: Tensor, frames: Tensor | None) -> Tensor:
    if frames is None:
        return F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype))
    each = F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype), reduction="none")
    return masked_average(each, frames.expand_as(each))


def guided_attention_loss(weights_BMTT: Tensor, event: Tensor, frames: Tensor | None = None) -> Tensor:
    """`-log(1 - a)` of the attention `a` that queries within the event pay to frames outside it, mean over such pairs;
    zero if there are none. This is the default. Of several tubes, each has a query in every frame.
    """
    attended = at_least_float32(weights_BMTT).mean(1)
    event = event.repeat_interleave(attended.shape[1] // event.shape[1], dim=1)
    outside = event[:, :, None] & ~event[:, None, :]
    if frames is not None:
        outside = outside & frames.repeat_interleave(attended.shape[1] // frames.shape[1], dim=1)[:, None, :]
    return masked_average(-torch.log((1 - attended).clamp(min=1e-6)), outside)


def published_guided_attention_loss(weights_BMTT: Tensor, event: Tensor, frames: Tensor | None = None) -> Tensor:
    """`-log(1 - a + ε)` of the attention `a` that queries outside the event pay to each frame, as the code published:
    added over the frames, mean over these queries, mean over the batch.
    """
    attended = at_least_float32(weights_BMTT).mean(1)
    outside = ~event if frames is None else ~event & frames
    outside = outside.repeat_interleave(attended.shape[1] // event.shape[1], dim=1)
    paid = -torch.log((1 - attended).clamp(min=0) + EPSILON).sum(-1)
    return ((paid * outside).sum(-1) / (outside.sum(-1) + EPSILON)).mean()
