"""Box arithmetic. Boxes are (cx, cy, w, h) in [0, 1] of the picture unless a name says corners."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

STEP_SCALE = 32.0  # of a box's steps between frames: a moving object's are about a thirtieth of the picture


def to_corners(boxes: Tensor) -> Tensor:
    """`(..., 4)` (cx, cy, w, h) → (x0, y0, x1, y1)."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def iou_and_giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al. 2019) of paired boxes `(..., 4)`; each `(...)`."""
    a, b = to_corners(a), to_corners(b)
    area_a = (a[..., 2:] - a[..., :2]).clamp(min=0).prod(-1)
    area_b = (b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1)
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    union = area_a + area_b - inner
    iou = inner / union.clamp(min=1e-9)
    return iou, iou - (hull - union) / hull.clamp(min=1e-9)


def location_target(boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """A distribution over the h·w cells whose mean is the box's centre: bilinear weights on the nearest cells.

    boxes `(..., 4)` → `(..., h·w)`. Centres outside the outermost cell centres count as on them.
    """
    h, w = grid
    x = (boxes[..., 0] * w - 0.5).clamp(0, w - 1)[..., None]
    y = (boxes[..., 1] * h - 0.5).clamp(0, h - 1)[..., None]
    columns = (1 - (x - torch.arange(w, device=boxes.device)).abs()).clamp(min=0)
    rows = (1 - (y - torch.arange(h, device=boxes.device)).abs()).clamp(min=0)
    return (rows[..., :, None] * columns[..., None, :]).flatten(-2)


def box_steps(boxes_BT4: Tensor, scale: Sequence[float] | None = None) -> Tensor:
    """What boxes move from frame to frame, `(B, T - 1, 4)`, at unit scale.

    Args:
        scale: of each step, T - 1 numbers, for frames that are not evenly apart; all 1 if left out.
    """
    steps = STEP_SCALE * boxes_BT4.diff(dim=1)
    return steps if scale is None else steps * steps.new_tensor(scale)[:, None]
