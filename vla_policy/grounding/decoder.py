"""The space-time decoder: one query per frame, which finds the target in its frame, predicts its box, and says whether
the event of the instruction begins or ends there.

After TubeDETR (Yang et al. 2022, section 3.3): temporal self-attention over all queries, time-aligned cross-attention
in which query t attends to frame t only, feed-forward. One thing is added: the query's dot product with every cell of
its frame is a location map, whose mean is the reference point of the box. The cross-entropy of this map is what lets
small policies learn in minutes.

B batch, T frames, N visual tokens per frame, n = h·w of them in the first camera, L text tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.policy import GroundingConfig
from vla_policy.layers import (
    Attention,
    FeedForward,
    at_least_float32,
    cell_centres,
    multi_layer,
    newest_at_zero,
    place_encoding,
)
from vla_policy.tokens import FusedTokens, VisualTokens

STEP_SCALE = 32.0  # of a box's steps between frames: a moving object's are about a thirtieth of the picture
PRIOR_EXTENT = 0.15  # width and height of a box before anything is learned, share of the picture


@dataclass(frozen=True, kw_only=True)
class EventLogits:
    """Logits `(B, T)`: start and end, over the frames, of the event; and for each frame, whether it is part of it."""

    start: Tensor
    end: Tensor
    during: Tensor


@dataclass(frozen=True, kw_only=True)
class GroundingOutput:
    """Where the target is, and when its event holds.

    queries `(B, T, D)`: one per frame.
    boxes `(B, T, 4)`: of the target.
    logits `(B, T, n)`: of its location, over the grid (h, w) of the first camera.
    centre `(B, T, 2)`: the mean of the location map.
    attention: attention maps by name.
    visible `(B, T)`: logits of whether the target is visible, None if the decoder does not predict it.
    event: logits of the event, None if the decoder does not predict it.
    """

    queries: Tensor
    boxes: Tensor
    logits: Tensor
    centre: Tensor
    grid: tuple[int, int]
    attention: dict[str, Tensor]
    visible: Tensor | None = None
    event: EventLogits | None = None


class DecoderBlock(nn.Module):
    """Temporal self-attention, time-aligned cross-attention, feed-forward, each with a residual and a layer norm:
    before it ("pre") or, as in the paper, after the residual ("post").

    A single frame has no other times to attend to: the temporal part is left out then.
    """

    def __init__(
        self, width: int, attention_heads: int, memory_width: int, *, temporal: bool, norm: str = "pre"
    ) -> None:
        super().__init__()
        self.post = norm == "post"
        self.norm_space, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm_time = nn.LayerNorm(width) if temporal else None
        self.time = Attention(width, attention_heads) if temporal else None
        self.space = Attention(width, attention_heads, key_width=memory_width)
        self.feed = FeedForward(width)

    def forward(
        self, q_BTD: Tensor, memory_BTND: Tensor, mask_BTN: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        b, t = q_BTD.shape[:2]
        attention = {}
        if self.time is not None and self.norm_time is not None:
            normed = self._before(self.norm_time, q_BTD)
            mixed, attention["time"] = self.time(normed, normed)
            q_BTD = self._after(self.norm_time, q_BTD + mixed)
        # Folding time into the batch is what keeps query t inside frame t.
        normed = self._before(self.norm_space, q_BTD).flatten(0, 1)[:, None]
        mask = None if mask_BTN is None else mask_BTN.flatten(0, 1)
        read, space_weights = self.space(normed, memory_BTND.flatten(0, 1), mask)
        q_BTD = self._after(self.norm_space, q_BTD + read.unflatten(0, (b, t)).squeeze(2))
        attention["space"] = space_weights.unflatten(0, (b, t))[:, -1]
        q_BTD = self._after(self.norm_feed, q_BTD + self.feed(self._before(self.norm_feed, q_BTD)))
        return q_BTD, attention

    def _before(self, norm: nn.Module, x: Tensor) -> Tensor:
        normed: Tensor = x if self.post else norm(x)
        return normed

    def _after(self, norm: nn.Module, x: Tensor) -> Tensor:
        normed: Tensor = norm(x) if self.post else x
        return normed


class EventPredictor(nn.Module):
    """Start and end of the event, two layers each as in the paper, and also whether a frame is part of the event: start
    is a softmax over the frames, which has a maximum even where the event has not begun.

    The input is the query of a frame and the steps of the box before and after this frame. Many events depend on
    whether an object moves, and with few blocks the queries carry little about each other's frames.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.start, self.end, self.during = (multi_layer([width + 8, width, 1]) for _ in range(3))
        for layers in (self.start, self.end):  # a softmax ignores what is added to all its logits
            layers[-1] = nn.Linear(width, 1, bias=False)

    def forward(self, queries_BTD: Tensor, boxes_BT4: Tensor) -> EventLogits:
        steps = STEP_SCALE * boxes_BT4.detach().diff(dim=1).to(queries_BTD.dtype)
        into, out_of = F.pad(steps, (0, 0, 1, 0)), F.pad(steps, (0, 0, 0, 1))
        features = torch.cat([queries_BTD, into, out_of], dim=-1)
        start, end, during = (
            at_least_float32(layers(features).squeeze(-1)) for layers in (self.start, self.end, self.during)
        )
        return EventLogits(start=start, end=end, during=during)


class SpaceTimeDecoder(nn.Module):
    """Time queries over the frames (Yang et al. 2022, section 3.3).

    Every query begins with the fusion's pooled tokens through a linear layer, whose bias is the paper's object
    embedding: so every query depends on the instruction from the start. Query t then attends to the memory of frame t
    only. In the newest frames, the fusion's tokens, which carry the whole window, are added to the frame's features.

    Args:
        frame_width: of the frames' features.
        pooled_width: of the fusion's pooled tokens.
        frames: T.
    """

    def __init__(
        self,
        config: GroundingConfig,
        width: int,
        attention_heads: int,
        frame_width: int,
        pooled_width: int,
        frames: int,
    ) -> None:
        super().__init__()
        # The memory keeps the frames' own width: T·N tokens are what this decoder costs.
        self.newest = nn.Linear(width, frame_width)
        self.place = nn.Linear(width, frame_width)
        self.object = nn.Linear(pooled_width, width)
        self.blocks = nn.ModuleList(
            DecoderBlock(width, attention_heads, frame_width, temporal=frames > 1, norm=config.norm)
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        # A key projection would fold into the query's: (W_q q)·(W_k m) = (W_kᵀ W_q q)·m.
        self.pointer = nn.Linear(width, frame_width)
        self.box = multi_layer([width, width, width, 4])
        nn.init.zeros_(self.box[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.box[-1].bias)  # type: ignore[arg-type]
        self.visible = multi_layer([width, width, 1]) if config.visibility_weight else None
        # A single frame has no interval between a start and an end.
        self.when = EventPredictor(width) if config.interval_weight and frames > 1 else None

    def forward(self, vision: VisualTokens, fused: FusedTokens) -> GroundingOutput:
        frames_BTNc = vision.frames
        _, t, n, _ = frames_BTNc.shape
        width = fused.vision.shape[-1]
        centres = cell_centres(vision.grid, frames_BTNc.device)
        cells = centres.shape[0]
        place = self.place(place_encoding(vision.grid, width, self.place.weight))
        memory = frames_BTNc + place.repeat(n // cells, 1)
        # The fusion's tokens are of the K newest frames.
        k = fused.vision.shape[1]
        memory[:, t - k :] += self.newest(fused.vision)
        cells_of_frames, mask = memory[:, :, :cells], None
        if vision.text is not None:
            text = vision.text
            memory = torch.cat([memory, text.tokens.to(memory.dtype)], dim=2)
            mask = torch.cat([text.mask.new_ones(len(memory), n), text.mask], dim=1)[:, None].expand(-1, t, -1)
        queries = self.object(fused.pooled)[:, None]
        queries = queries + newest_at_zero(t, width, self.object.weight)
        attention: dict[str, Tensor] = {}
        for i, block in enumerate(self.blocks):
            queries, weights = block(queries, memory, mask)
            attention |= {f"decoder_{name}_{i}": w for name, w in weights.items()}
        queries = self.norm(queries)
        logits = at_least_float32((cells_of_frames @ self.pointer(queries).unsqueeze(-1)).squeeze(-1))
        centre = logits.softmax(-1) @ centres.to(logits.dtype)
        reference = torch.cat([centre, torch.full_like(centre, PRIOR_EXTENT)], dim=-1)
        boxes = torch.sigmoid(at_least_float32(self.box(queries)) + torch.logit(reference, eps=1e-4))
        return GroundingOutput(
            queries=queries,
            boxes=boxes,
            logits=logits,
            centre=centre,
            grid=vision.grid,
            attention=attention,
            visible=None if self.visible is None else at_least_float32(self.visible(queries).squeeze(-1)),
            event=None if self.when is None else self.when(queries, boxes),
        )
