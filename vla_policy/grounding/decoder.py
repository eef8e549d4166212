"""The space-time decoder: one query per frame, which finds the target in its frame, predicts its box, and says whether
the event of the instruction begins or ends there.

After TubeDETR (Yang et al. 2022, section 3.3): temporal self-attention over all queries, time-aligned cross-attention
in which query t attends to frame t only, feed-forward. Some things are added (`GroundingConfig.extras`). Above all, the
query's dot product with every cell of its frame is a location map, whose mean is the reference point of the box. The
cross-entropy of this map is what lets small policies learn in minutes. docs/tubedetr.md leads to the paper's own.

Several tubes can be found at once: of the target and of the goal that it is to be brought to, in one or all cameras.
Each has queries of its own, which differ by a learned embedding; those of all tubes and frames attend to one another.

B batch, T frames, K tubes, V cameras, N visual tokens per frame, n = h·w of them in one camera, L text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.policy import GroundingConfig
from vla_policy.grounding.boxes import box_steps
from vla_policy.layers import (
    Attention,
    FeedForward,
    at_least_float32,
    cell_centres,
    interleaved_sinusoid,
    multi_layer,
    newest_at_zero,
    place_encoding,
    sine_places,
    start_with_xavier,
)
from vla_policy.tokens import FusedTokens, VisualTokens

PRIOR_EXTENT = 0.15  # width and height of a box before anything is learned, share of the picture


@dataclass(frozen=True, kw_only=True)
class EventLogits:
    """Logits `(B, T)`: start and end, over the frames, of the event; and for each frame, whether it is part of it, None
    if the decoder does not predict that.
    """

    start: Tensor
    end: Tensor
    during: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class GroundingOutput:
    """Where the target is, and when its event holds.

    tube_queries `(B, T, K, D)`: one per frame and tube.
    tubes `(B, T, K, 4)`: boxes.
    tube_logits `(B, T, K, n)`: of the location, over the grid (h, w) of the tube's camera; None without a map.
    tube_centre `(B, T, K, 2)`: the mean of the location map.
    attention: attention maps by name.
    tube_visible `(B, T, K)`: logits of whether the thing is visible, None if the decoder does not predict it.
    event: logits of the event, None if the decoder does not predict it.
    earlier: the same of the blocks before the last one, without attention, if these have losses, too.

    `queries`, `boxes`, `logits`, `centre` and `visible` are those of the first tube: the target's in the first camera.
    """

    tube_queries: Tensor
    tubes: Tensor
    tube_logits: Tensor | None
    tube_centre: Tensor | None
    grid: tuple[int, int]
    attention: dict[str, Tensor]
    tube_visible: Tensor | None = None
    event: EventLogits | None = None
    earlier: tuple[GroundingOutput, ...] = ()

    @property
    def queries(self) -> Tensor:
        return self.tube_queries[:, :, 0]

    @property
    def boxes(self) -> Tensor:
        return self.tubes[:, :, 0]

    @property
    def logits(self) -> Tensor | None:
        return None if self.tube_logits is None else self.tube_logits[:, :, 0]

    @property
    def centre(self) -> Tensor | None:
        return None if self.tube_centre is None else self.tube_centre[:, :, 0]

    @property
    def visible(self) -> Tensor | None:
        return None if self.tube_visible is None else self.tube_visible[:, :, 0]


class DecoderBlock(nn.Module):
    """Temporal self-attention, time-aligned cross-attention, feed-forward, each with a residual and a layer norm:
    before it ("pre") or, as in the paper, after the residual ("post").

    A single frame of a single tube has no others to attend to: the temporal part is left out then.
    """

    def __init__(
        self,
        width: int,
        attention_heads: int,
        memory_width: int,
        *,
        temporal: bool,
        norm: str = "pre",
        feed_ratio: float = 2.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.post = norm == "post"
        self.drop = nn.Dropout(dropout)
        self.norm_space, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm_time = nn.LayerNorm(width) if temporal else None
        self.time = Attention(width, attention_heads, dropout=dropout) if temporal else None
        self.space = Attention(width, attention_heads, key_width=memory_width, dropout=dropout)
        self.feed = FeedForward(width, feed_ratio, dropout)

    def forward(
        self,
        q_BTKD: Tensor,
        memory_BTVND: Tensor,
        mask_BTVN: Tensor | None = None,
        *,
        keys_BTVND: Tensor | None = None,
        place_BTKD: Tensor | None = None,
        frames_BT: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Queries `(B, T, K, D)` read memory in V parts, K/V of them each part, in their order.

        Args:
            keys_BTVND: the memory with its positions, by which it is found; the memory itself if left out.
            place_BTKD: the queries' own positions, added wherever they look.
            frames_BT: False for frames that nobody may attend to.
        """
        b, t, k, _ = q_BTKD.shape
        parts = memory_BTVND.shape[2]
        attention = {}
        if self.time is not None and self.norm_time is not None:
            normed = self._before(self.norm_time, q_BTKD.flatten(1, 2))
            where = normed if place_BTKD is None else normed + place_BTKD.flatten(1, 2)
            shown = None if frames_BT is None else frames_BT.repeat_interleave(k, dim=1)
            mixed, attention["time"] = self.time(where, where, shown, normed)
            q_BTKD = self._after(self.norm_time, q_BTKD + self.drop(mixed).unflatten(1, (t, k)))
        # Folding time into the batch is what keeps query t inside frame t.
        normed = self._before(self.norm_space, q_BTKD)
        normed = normed if place_BTKD is None else normed + place_BTKD
        normed = normed.unflatten(2, (parts, -1)).flatten(0, 2)
        mask = None if mask_BTVN is None else mask_BTVN.flatten(0, 2)
        memory = memory_BTVND.flatten(0, 2)
        keys = memory if keys_BTVND is None else keys_BTVND.flatten(0, 2)
        read, space_weights = self.space(normed, keys, mask, memory)
        q_BTKD = self._after(self.norm_space, q_BTKD + self.drop(read).unflatten(0, (b, t, parts)).flatten(2, 3))
        attention["space"] = space_weights.unflatten(0, (b, t, parts))[:, -1].transpose(1, 2).flatten(2, 3)
        q_BTKD = self._after(self.norm_feed, q_BTKD + self.drop(self.feed(self._before(self.norm_feed, q_BTKD))))
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

    Args:
        step_scale: of the T - 1 steps, for frames that are not evenly apart.
    """

    def __init__(self, width: int, step_scale: Sequence[float] | None = None) -> None:
        super().__init__()
        self._step_scale = step_scale
        self.start, self.end, self.during = (multi_layer([width + 8, width, 1]) for _ in range(3))
        for layers in (self.start, self.end):  # a softmax ignores what is added to all its logits
            layers[-1] = nn.Linear(width, 1, bias=False)

    def forward(self, queries_BTD: Tensor, boxes_BT4: Tensor) -> EventLogits:
        steps = box_steps(boxes_BT4.detach(), self._step_scale).to(queries_BTD.dtype)
        into, out_of = F.pad(steps, (0, 0, 1, 0)), F.pad(steps, (0, 0, 0, 1))
        features = torch.cat([queries_BTD, into, out_of], dim=-1)
        start, end, during = (
            at_least_float32(layers(features).squeeze(-1)) for layers in (self.start, self.end, self.during)
        )
        return EventLogits(start=start, end=end, during=during)


class StartEnd(nn.Module):
    """Start and end of the event from the queries alone: one hidden layer for both, as in the published code, which in
    training drops both its features and the logits.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.hidden, self.out, self.drop = nn.Linear(width, width), nn.Linear(width, 2), nn.Dropout(dropout)

    def forward(self, queries_BTD: Tensor, boxes_BT4: Tensor) -> EventLogits:
        logits = self.drop(self.out(self.drop(F.relu(self.hidden(queries_BTD)))))
        start, end = at_least_float32(logits).unbind(-1)
        return EventLogits(start=start, end=end)


class SpaceTimeDecoder(nn.Module):
    """Time queries over the frames (Yang et al. 2022, section 3.3).

    Every query begins with the fusion's pooled tokens through a linear layer, whose bias is the paper's object
    embedding: so every query depends on the instruction from the start. Query t then attends to the memory of frame t
    only; if there are tubes in all cameras, only to its own camera's part of it. In the newest frames, the fusion's
    tokens, which carry the whole window, are added to the frame's features. That is with `config.extras`; without, all
    queries begin with the object embedding alone, and the memory is the frames' features.

    Args:
        frame_width: of the frames' features.
        pooled_width: of the fusion's pooled tokens.
        frames: T.
        cameras: V.
        step_scale: of the T - 1 steps between boxes, for frames that are not evenly apart.
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
        step_scale: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.parts = cameras if config.cameras == "all" else 1  # into which the memory of a frame falls
        self.tubes = self.parts * len(config.things)
        self.extras, self.each_layer, self.auxiliary = config.extras, config.positions == "each_layer", config.auxiliary
        # The memory keeps the frames' own width: T·N tokens are what this decoder costs.
        self.tube: nn.Parameter | None = None
        self.newest: nn.Linear | None = None
        self.place: nn.Linear | None = None
        self.pointer: nn.Linear | None = None
        if self.extras and self.tubes > 1:
            self.tube = nn.Parameter(torch.zeros(self.tubes, width).normal_(std=0.3))
        if self.extras:
            self.newest = nn.Linear(width, frame_width)
        if not self.each_layer:
            self.place = nn.Linear(width, frame_width)
        self.object = nn.Linear(pooled_width, width) if self.extras else nn.Embedding(self.tubes, width)
        self.blocks = nn.ModuleList(
            DecoderBlock(
                width,
                attention_heads,
                frame_width,
                temporal=frames * self.tubes > 1,
                norm=config.norm,
                feed_ratio=config.feed_ratio,
                dropout=config.dropout,
            )
            for _ in range(config.layers)
        )
        if self.each_layer:
            start_with_xavier(self.blocks)
        self.norm = nn.LayerNorm(width)
        if self.extras:
            # A key projection would fold into the query's: (W_q q)·(W_k m) = (W_kᵀ W_q q)·m.
            self.pointer = nn.Linear(width, frame_width)
        self.box = multi_layer([width, width, width, 4])
        if self.extras:
            nn.init.zeros_(self.box[-1].weight)  # type: ignore[arg-type]
            nn.init.zeros_(self.box[-1].bias)  # type: ignore[arg-type]
        self.visible = multi_layer([width, width, 1]) if config.visibility_weight else None
        self.when: nn.Module | None = None
        if config.interval_weight and frames > 1:  # a single frame has no interval between a start and an end
            self.when = EventPredictor(width, step_scale) if self.extras else StartEnd(width, config.head_dropout)

    @property
    def tells_during(self) -> bool:
        """Whether each frame says that it is part of the event."""
        return self.extras and self.when is not None

    def forward(self, vision: VisualTokens, fused: FusedTokens) -> GroundingOutput:
        t = vision.frames.shape[1]
        cells = cell_centres(vision.grid).shape[0]
        memory = self._memory(vision, fused)
        pictures = memory[:, :, : self.parts * cells].unflatten(2, (self.parts, cells))
        memory = memory.unflatten(2, (self.parts, -1))
        memory, keys, mask = self._with_text(vision, memory)
        queries, places = self._queries(fused, t)
        shown = None if vision.padding is None else vision.padding.frames
        attention: dict[str, Tensor] = {}
        earlier: list[GroundingOutput] = []
        for i, block in enumerate(self.blocks):
            queries, weights = block(queries, memory, mask, keys_BTVND=keys, place_BTKD=places, frames_BT=shown)
            attention |= {f"decoder_{name}_{i}": w for name, w in weights.items()}
            if self.auxiliary and i < len(self.blocks) - 1:
                earlier.append(self._read(queries, pictures, vision.grid, {}))
        return self._read(queries, pictures, vision.grid, attention, tuple(earlier))

    def _memory(self, vision: VisualTokens, fused: FusedTokens) -> Tensor:
        """What the queries read of each frame, `(B, T, N, c)`, without the text."""
        memory = vision.frames
        if self.place is not None:
            place = self.place(place_encoding(vision.grid, fused.vision.shape[-1], self.place.weight))
            memory = memory + place.repeat(memory.shape[2] // len(place), 1)
        if self.newest is not None:
            # The fusion's tokens are of the K newest frames.
            first = memory.shape[1] - fused.vision.shape[1]
            memory = memory.clone() if self.place is None else memory
            memory[:, first:] += self.newest(fused.vision)
        return memory

    def _with_text(self, vision: VisualTokens, memory_BTVNc: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The memory with the text tokens behind each part, the same with its positions if these are added in each
        layer, and the mask `(B, T, V, N + L)`.
        """
        memory, keys, mask = memory_BTVNc, None, None
        b, t, parts, read, width = memory.shape
        shown = None if vision.padding is None else vision.padding.places(vision.grid)
        if self.each_layer:
            everywhere = torch.ones(1, *vision.grid, dtype=torch.bool, device=memory.device)
            place = sine_places(everywhere if shown is None else shown, width).to(memory.dtype)
            keys = memory + place.repeat(1, read // place.shape[1], 1)[:, None, None]
        if shown is not None:
            mask = shown.flatten(1).repeat(1, read // shown[0].numel())
        if vision.text is not None:
            text = vision.text
            words = text.tokens.to(memory.dtype)[:, :, None].expand(-1, -1, parts, -1, -1)
            memory = torch.cat([memory, words], dim=3)
            keys = None if keys is None else torch.cat([keys, words], dim=3)
            mask = torch.cat([text.mask.new_ones(b, read) if mask is None else mask, text.mask], dim=1)
        return memory, keys, None if mask is None else mask[:, None, None].expand(-1, t, parts, -1)

    def _queries(self, fused: FusedTokens, frames: int) -> tuple[Tensor, Tensor | None]:
        """The queries as they begin, `(B, T, K, D)`, and their positions if these are added in each layer."""
        b, width = fused.pooled.shape[0], self.norm.normalized_shape[0]
        if isinstance(self.object, nn.Embedding):
            like, start = self.object.weight, self.object.weight.expand(b, 1, -1, -1)
        else:
            like, start = self.object.weight, self.object(fused.pooled)[:, None, None]
        if self.each_layer:
            times = interleaved_sinusoid(torch.arange(frames, device=like.device), width).to(like.dtype)
        else:
            times = newest_at_zero(frames, width, like)
        queries: Tensor = start + times[:, None]
        if self.tube is not None:
            queries = queries + self.tube
        return (torch.zeros_like(queries), queries) if self.each_layer else (queries, None)

    def _read(
        self,
        queries: Tensor,
        pictures_BTVnc: Tensor,
        grid: tuple[int, int],
        attention: dict[str, Tensor],
        earlier: tuple[GroundingOutput, ...] = (),
    ) -> GroundingOutput:
        """What the queries say after a block."""
        queries = self.norm(queries)
        logits = centre = reference = None
        if self.pointer is not None:
            pointers = self.pointer(queries).unflatten(2, (self.parts, -1))
            logits = at_least_float32((pictures_BTVnc @ pointers.mT).mT).flatten(2, 3)
            centre = logits.softmax(-1) @ cell_centres(grid, logits.device).to(logits.dtype)
            reference = torch.cat([centre, torch.full_like(centre, PRIOR_EXTENT)], dim=-1)
        offsets = at_least_float32(self.box(queries))
        boxes = torch.sigmoid(offsets if reference is None else offsets + torch.logit(reference, eps=1e-4))
        return GroundingOutput(
            tube_queries=queries,
            tubes=boxes,
            tube_logits=logits,
            tube_centre=centre,
            grid=grid,
            attention=attention,
            tube_visible=None if self.visible is None else at_least_float32(self.visible(queries).squeeze(-1)),
            event=None if self.when is None else self.when(queries[:, :, 0], boxes[:, :, 0]),
            earlier=earlier,
        )
