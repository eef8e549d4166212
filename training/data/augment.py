"""Augmentation of training batches, in bulk, on whatever device the batch is on.

B batch, T frames, V cameras, C H W image, L words.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from configs.training import AugmentConfig
from vla_policy.contract import Batch
from vla_policy.tokenizer import UNKNOWN


def augment(
    batch: Batch,
    config: AugmentConfig,
    generator: torch.Generator,
    unknown: int | None = UNKNOWN,
    *,
    share: slice = slice(None),
    whole: int | None = None,
) -> Batch:
    """A new batch with shifted, brightened pictures, boxes moved along, and some words unknown.

    Args:
        unknown: the tokenizer's id for an unknown word; None leaves the words alone.
        share: where the samples stand in the batch that they are a share of; each gets the same as in the whole one.
        whole: samples of that batch; those of this one if left out.
    """
    seen = batch.observation
    frames, boxes, visible = seen.frames, batch.boxes, batch.visible
    more_boxes, more_visible = batch.more_boxes, batch.more_visible
    b, _, _, _, height, width = frames.shape
    whole = b if whole is None else whole
    device = frames.device
    if config.shift:
        amount = torch.randint(-config.shift, config.shift + 1, (2, whole), generator=generator)
        amount = amount[:, share].to(device)
        rows = (torch.arange(height, device=device) - amount[0, :, None]).clamp(0, height - 1)
        columns = (torch.arange(width, device=device) - amount[1, :, None]).clamp(0, width - 1)
        sample = torch.arange(b, device=device)[:, None, None]
        by_pixel = frames.permute(0, 4, 5, 1, 2, 3)[sample, rows[:, :, None], columns[:, None, :]]
        frames = by_pixel.permute(0, 3, 4, 5, 1, 2)
        move = torch.stack([amount[1] / width, amount[0] / height], dim=-1)[:, None]
        boxes, visible = _moved(boxes, visible, move)
        if more_boxes is not None and more_visible is not None:
            more_boxes, more_visible = _moved(more_boxes, more_visible, move[:, None])
    if config.brightness:
        scale = 1 + config.brightness * (2 * torch.rand(whole, generator=generator)[share].to(device) - 1)
        frames = (frames * scale.view(b, 1, 1, 1, 1, 1)).clamp_(0, 255).to(torch.uint8)
    tokens = seen.tokens
    if config.unknown_words and unknown is not None:
        forget = torch.rand(whole, tokens.shape[1], generator=generator)[share].to(device) < config.unknown_words
        tokens = torch.where(forget & seen.token_mask, unknown, tokens)
    return Batch(
        observation=replace(seen, frames=frames, tokens=tokens),
        action=batch.action,
        action_mask=batch.action_mask,
        boxes=boxes,
        visible=visible,
        event=batch.event,
        more_boxes=more_boxes,
        more_visible=more_visible,
    )


def _moved(boxes: torch.Tensor, visible: torch.Tensor, move: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes whose centres move, and whether they are still in the picture."""
    boxes = torch.cat([boxes[..., :2] + move, boxes[..., 2:]], dim=-1)
    return boxes, visible & (boxes[..., :2] > 0).all(-1) & (boxes[..., :2] < 1).all(-1)
