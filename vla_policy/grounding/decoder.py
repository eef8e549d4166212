"""The space-time decoder: one query per frame, which finds the target in its frame, predicts its box, and says whether
the event of the instruction begins or ends there.

After TubeDETR (Yang et al. 2022, section 3.3): temporal self-attention over all queries, time-aligned cross-attention
in which query t attends to frame t only, feed-forward. One thing is added: the query's dot product with every cell of
its frame is a location map, whose mean is the reference point of the box. The cross-entropy of this map is what lets
small policies learn in minutes.

Several tubes can be found at once: of the target and of the goal that it is to be brought to, in one or all cameras.
Each has queries of its own, which differ by a learned embedding; those of all tubes and frames attend to one another.

B batch, T frames, K tubes, V cameras, N visual tokens per frame, n = h·w of them in one camera, L text tokens, D width.
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

    tube_queries `(B, T, K, D)`: one per frame and tube.
    tubes `(B, T, K, 4)`: boxes.
    tube_logits `(B, T, K, n)`: of the location, over the grid (h, w) of the tube's camera.
    tube_centre `(B, T, K, 2)`: the mean of the location map.
    attention: attention maps by name.
    tube_visible `(B, T, K)`: logits of whether the thing is visible, None if the decoder does not predict it.
    event: logits of the event, None if the decoder does not predict it.

    `queries`, `boxes`, `logits`, `centre` and `visible` are those of the first tube: the target's in the first camera.
    """

    tube_queries: Tensor
    tubes: Tensor
    tube_logits: Tensor
    tube_centre: Tensor
    grid: tuple[int, int]
    attention: dict[str, Tensor]
    tube_visible: Tensor | None = None
    event: EventLogits | None = None

    @property
    def queries(self) -> Tensor:
        return self.tube_queries[:, :, 0]

    @property
    def boxes(self) -> Tensor:
        return self.tubes[:, :, 0]

    @property
    def logits(self) -> Tensor:
        return self.tube_logits[:, :, 0]

    @property
    def centre(self) -> Tensor:
        return self.tube_centre[:, :, 0]

    @property
    def visible(self) -> Tensor | None:
        return None if self.tube_visible is None else self.tube_visible[:, :, 0]


class DecoderBlock(nn.Module):
    """Temporal self-attention, time-aligned cross-attention, feed-forward, each with a residual and a layer norm:
    before it ("pre") or, as in the paper, after the residual ("post").

    A single frame of a single tube has no others to attend to: the temporal part is left out then.
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
        self, q_BTKD: Tensor, memory_BTVND: Tensor, mask_BTVN: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Queries `(B, T, K, D)` read memory in V parts, K/V of them each part, in their order."""
        b, t, k, _ = q_BTKD.shape
        parts = memory_BTVND.shape[2]
        attention = {}
        if self.time is not None and self.norm_time is not None:
            normed = self._before(self.norm_time, q_BTKD.flatten(1, 2))
            mixed, attention["time"] = self.time(normed, normed)
            q_BTKD = self._after(self.norm_time, q_BTKD + mixed.unflatten(1, (t, k)))
        # Folding time into the batch is what keeps query t inside frame t.
        normed = self._before(self.norm_space, q_BTKD).unflatten(2, (parts, -1)).flatten(0, 2)
        mask = None if mask_BTVN is None else mask_BTVN.flatten(0, 2)
        read, space_weights = self.space(normed, memory_BTVND.flatten(0, 2), mask)
        q_BTKD = self._after(self.norm_space, q_BTKD + read.unflatten(0, (b, t, parts)).flatten(2, 3))
        attention["space"] = space_weights.unflatten(0, (b, t, parts))[:, -1].transpose(1, 2).flatten(2, 3)
        q_BTKD = self._after(self.norm_feed, q_BTKD + self.feed(self._before(self.norm_feed, q_BTKD)))
        return q_BTKD, attention

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
    only; if there are tubes in all cameras, only to its own camera's part of it. In the newest frames, the fusion's
    tokens, which carry the whole window, are added to the frame's features.

    Args:
        frame_width: of the frames' features.
        pooled_width: of the fusion's pooled tokens.
        frames: T.
        cameras: V.
    """

    def __init__(
        self,
        config: GroundingConfig,
        width: int,
        attention_heads: int,
        frame_width: int,
        pooled_width: int,
        frames: int,
        cameras: int = 1,
    ) -> None:
        super().__init__()
        self.parts = cameras if config.cameras == "all" else 1  # into which the memory of a frame falls
        self.tubes = self.parts * len(config.things)
        self.tube = nn.Parameter(torch.zeros(self.tubes, width).normal_(std=0.3)) if self.tubes > 1 else None
        # The memory keeps the frames' own width: T·N tokens are what this decoder costs.
        self.newest = nn.Linear(width, frame_width)
        self.place = nn.Linear(width, frame_width)
        self.object = nn.Linear(pooled_width, width)
        self.blocks = nn.ModuleList(
            DecoderBlock(width, attention_heads, frame_width, temporal=frames * self.tubes > 1, norm=config.norm)
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
        pictures = memory[:, :, : self.parts * cells].unflatten(2, (self.parts, cells))
        memory, mask = memory.unflatten(2, (self.parts, -1)), None
        if vision.text is not None:
            text, read = vision.text, memory.shape[3]
            words = text.tokens.to(memory.dtype)[:, :, None].expand(-1, -1, self.parts, -1, -1)
            memory = torch.cat([memory, words], dim=3)
            mask = torch.cat([text.mask.new_ones(memory.shape[0], read), text.mask], dim=1)
            mask = mask[:, None, None].expand(-1, t, self.parts, -1)
        queries = self.object(fused.pooled)[:, None]
        queries = (queries + newest_at_zero(t, width, self.object.weight))[:, :, None]
        if self.tube is not None:
            queries = queries + self.tube
        attention: dict[str, Tensor] = {}
        for i, block in enumerate(self.blocks):
            queries, weights = block(queries, memory, mask)
            attention |= {f"decoder_{name}_{i}": w for name, w in weights.items()}
        queries = self.norm(queries)
        pointers = self.pointer(queries).unflatten(2, (self.parts, -1))
        logits = at_least_float32((pictures @ pointers.mT).mT).flatten(2, 3)
        centre = logits.softmax(-1) @ centres.to(logits.dtype)
        reference = torch.cat([centre, torch.full_like(centre, PRIOR_EXTENT)], dim=-1)
        boxes = torch.sigmoid(at_least_float32(self.box(queries)) + torch.logit(reference, eps=1e-4))
        return GroundingOutput(
            tube_queries=queries,
            tubes=boxes,
            tube_logits=logits,
            tube_centre=centre,
            grid=vision.grid,
            attention=attention,
            tube_visible=None if self.visible is None else at_least_float32(self.visible(queries).squeeze(-1)),
            event=None if self.when is None else self.when(queries[:, :, 0], boxes[:, :, 0]),
        )
