"""The space-time decoder: one query a frame, which points at the target in its frame and draws its box.

After TubeDETR (Yang et al. 2022): temporal self-attention over all queries, time-aligned cross-attention in which
query t sees frame t only, feed-forward. On top, a pointer: the query's dot product with every cell of its frame is a
location map, whose mean is the box's reference point. Its cross-entropy is what makes small policies learn in minutes.

B batch, T frames, N visual tokens a frame, n = h·w of them in the first camera, L words, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_policy.config import GroundingConfig
from vla_policy.grounding.boxes import iou_and_giou, location_target
from vla_policy.layers import Attention, FeedForward, cell_centres, multi_layer, newest_at_zero, place_encoding
from vla_policy.tokens import FusedTokens, VisualTokens

PRIOR_EXTENT = 0.15  # width and height of a box before anything is learned, share of the picture


@dataclass(frozen=True, kw_only=True)
class Tube:
    """queries `(B, T, D)`, boxes `(B, T, 4)`, location logits `(B, T, n)` over the first camera's grid, and the centre
    that the location map implies `(B, T, 2)`.
    """

    queries: Tensor
    boxes: Tensor
    logits: Tensor
    centre: Tensor
    grid: tuple[int, int]
    attention: dict[str, Tensor]


class DecoderBlock(nn.Module):
    """Temporal self-attention, time-aligned cross-attention, feed-forward; pre-norm residuals.

    A single frame has no other times to attend to: the temporal part is left out then.
    """

    def __init__(self, width: int, heads: int, memory_width: int, *, temporal: bool) -> None:
        super().__init__()
        self.norm_space, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm_time = nn.LayerNorm(width) if temporal else None
        self.time = Attention(width, heads) if temporal else None
        self.space = Attention(width, heads, key_width=memory_width)
        self.feed = FeedForward(width)

    def forward(self, q_BTD: Tensor, memory_BTND: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        b, t = q_BTD.shape[:2]
        attention = {}
        if self.time is not None and self.norm_time is not None:
            normed = self.norm_time(q_BTD)
            mixed, attention["time"] = self.time(normed, normed)
            q_BTD = q_BTD + mixed
        # Folding time into the batch is what keeps query t inside frame t.
        looked, space_weights = self.space(self.norm_space(q_BTD).flatten(0, 1)[:, None], memory_BTND.flatten(0, 1))
        q_BTD = q_BTD + looked.unflatten(0, (b, t)).squeeze(2)
        attention["space"] = space_weights.unflatten(0, (b, t))[:, -1]
        return q_BTD + self.feed(self.norm_feed(q_BTD)), attention


class SpaceTimeDecoder(nn.Module):
    def __init__(
        self, config: GroundingConfig, width: int, heads: int, frame_width: int, pooled_width: int, frames: int
    ) -> None:
        super().__init__()
        # The memory keeps the frames' own width: T·N tokens are what this decoder costs.
        self.newest = nn.Linear(width, frame_width)
        self.place = nn.Linear(width, frame_width)
        self.object = nn.Linear(pooled_width, width)
        self.blocks = nn.ModuleList(
            DecoderBlock(width, heads, frame_width, temporal=frames > 1) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        # A key projection would fold into the query's: (W_q q)·(W_k m) = (W_kᵀ W_q q)·m.
        self.pointer = nn.Linear(width, frame_width)
        self.box = multi_layer([width, width, width, 4])
        nn.init.zeros_(self.box[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.box[-1].bias)  # type: ignore[arg-type]

    def forward(self, vision: VisualTokens, fused: FusedTokens) -> Tube:
        frames_BTNc = vision.frames
        _, t, n, _ = frames_BTNc.shape
        width = fused.vision.shape[-1]
        centres = cell_centres(vision.grid, frames_BTNc.device)
        cells = centres.shape[0]
        place = self.place(place_encoding(vision.grid, width, frames_BTNc.device))
        memory = frames_BTNc + place.repeat(n // cells, 1)
        # The fusion's tokens stand for the newest moments: add them where they belong.
        k = fused.vision.shape[1]
        memory[:, t - k :] += self.newest(fused.vision)
        queries = self.object(fused.pooled)[:, None]
        queries = queries + newest_at_zero(t, queries)
        attention: dict[str, Tensor] = {}
        for i, block in enumerate(self.blocks):
            queries, weights = block(queries, memory)
            attention |= {f"decoder_{name}_{i}": w for name, w in weights.items()}
        queries = self.norm(queries)
        logits = (memory[:, :, :cells] @ self.pointer(queries).unsqueeze(-1)).squeeze(-1).float()
        centre = logits.softmax(-1) @ centres
        reference = torch.cat([centre, torch.full_like(centre, PRIOR_EXTENT)], dim=-1)
        boxes = torch.sigmoid(self.box(queries).float() + torch.logit(reference, eps=1e-4))
        return Tube(queries=queries, boxes=boxes, logits=logits, centre=centre, grid=vision.grid, attention=attention)


def grounding_loss(
    config: GroundingConfig, tube: Tube, boxes: Tensor, visible: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the location map, L1 and GIoU of the boxes, each a mean over the visible frames.

    boxes `(B, T, 4)`, visible `(B, T)` bool.
    """
    weight = visible.float() / visible.float().sum().clamp(min=1)
    cross_entropy = -(location_target(boxes, tube.grid) * F.log_softmax(tube.logits, dim=-1)).sum(-1)
    iou, giou = iou_and_giou(tube.boxes, boxes)
    box = 5 * (tube.boxes - boxes).abs().mean(-1) + (1 - giou)
    location = (cross_entropy * weight).sum()
    drawn = (box * weight).sum()
    total = config.location_weight * location + config.box_weight * drawn
    newest = visible[:, -1].float()
    metrics = {
        "location": location,
        "box": drawn,
        "iou": (iou[:, -1] * newest).sum() / newest.sum().clamp(min=1),
    }
    return total, {k: v.detach() for k, v in metrics.items()}
