"""The space-time decoder: one query a frame, which points at the target in its frame, draws its box, and says whether
the event of the words begins or ends there.

After TubeDETR (Yang et al. 2022, section 3.3): temporal self-attention over all queries, time-aligned cross-attention
in which query t sees frame t only, feed-forward. On top, a pointer: the query's dot product with every cell of its
frame is a location map, whose mean is the box's reference point. Its cross-entropy is what makes small policies learn
in minutes.

B batch, T frames, N visual tokens a frame, n = h·w of them in the first camera, L words, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.policy import GroundingConfig
from vla_policy.layers import Attention, FeedForward, cell_centres, multi_layer, newest_at_zero, place_encoding
from vla_policy.tokens import FusedTokens, VisualTokens

STEP_SCALE = 32.0  # of a box's steps between frames: a moving object's are about a thirtieth of the picture
PRIOR_EXTENT = 0.15  # width and height of a box before anything is learned, share of the picture


@dataclass(frozen=True, kw_only=True)
class When:
    """Logits `(B, T)`: start and end, over the frames, of the event; and for each frame, whether it is part of it."""

    start: Tensor
    end: Tensor
    during: Tensor


@dataclass(frozen=True, kw_only=True)
class Tube:
    """queries `(B, T, D)`, boxes `(B, T, 4)`, location logits `(B, T, n)` over the first camera's grid, and the centre
    that the location map implies `(B, T, 2)`. visible: of a decoder that tells, logits `(B, T)` of whether the target
    is; when: of a decoder that knows time, the event.
    """

    queries: Tensor
    boxes: Tensor
    logits: Tensor
    centre: Tensor
    grid: tuple[int, int]
    attention: dict[str, Tensor]
    visible: Tensor | None = None
    when: When | None = None


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
            asked = self._before(self.norm_time, q_BTD)
            mixed, attention["time"] = self.time(asked, asked)
            q_BTD = self._after(self.norm_time, q_BTD + mixed)
        # Folding time into the batch is what keeps query t inside frame t.
        asked = self._before(self.norm_space, q_BTD).flatten(0, 1)[:, None]
        mask = None if mask_BTN is None else mask_BTN.flatten(0, 1)
        looked, space_weights = self.space(asked, memory_BTND.flatten(0, 1), mask)
        q_BTD = self._after(self.norm_space, q_BTD + looked.unflatten(0, (b, t)).squeeze(2))
        attention["space"] = space_weights.unflatten(0, (b, t))[:, -1]
        q_BTD = self._after(self.norm_feed, q_BTD + self.feed(self._before(self.norm_feed, q_BTD)))
        return q_BTD, attention

    def _before(self, norm: nn.Module, x: Tensor) -> Tensor:
        normed: Tensor = x if self.post else norm(x)
        return normed

    def _after(self, norm: nn.Module, x: Tensor) -> Tensor:
        normed: Tensor = norm(x) if self.post else x
        return normed


class WhenHeads(nn.Module):
    """Start and end of the event, two layers each as in the paper, and on top of it whether a frame is part of the
    event: a softmax over frames has to begin the event somewhere, also while it has not begun.

    They read the queries and how the box moves into and out of each frame: whether something moves or rests is what
    many events are about, and with few blocks the queries hardly know of each other's frames.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.start, self.end, self.during = (multi_layer([width + 8, width, 1]) for _ in range(3))
        for head in (self.start, self.end):  # a softmax ignores what is added to all its logits
            head[-1] = nn.Linear(width, 1, bias=False)

    def forward(self, queries_BTD: Tensor, boxes_BT4: Tensor) -> When:
        steps = STEP_SCALE * boxes_BT4.detach().diff(dim=1).to(queries_BTD.dtype)
        into, out_of = F.pad(steps, (0, 0, 1, 0)), F.pad(steps, (0, 0, 0, 1))
        seen = torch.cat([queries_BTD, into, out_of], dim=-1)
        start, end, during = (head(seen).squeeze(-1).float() for head in (self.start, self.end, self.during))
        return When(start=start, end=end, during=during)


class SpaceTimeDecoder(nn.Module):
    """Time queries over the frames (Yang et al. 2022, section 3.3).

    What the paper's object embedding is learned to be, here is a linear layer's bias; its weights add what the fusion
    pooled, so that every query knows from the start what is sought, and of what is moving what the fusion knows of it.
    Query t then reads the memory of frame t only; that of the newest moments holds the fusion's tokens, which
    stand for the whole window, beside the frame's own.

    Args:
        frame_width: of the frames' tokens.
        pooled_width: of what the fusion pools.
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
        # With one frame there is nothing between a start and an end.
        self.when = WhenHeads(width) if config.interval_weight and frames > 1 else None

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
        cells_of_frames, mask = memory[:, :, :cells], None
        if vision.words is not None:
            said = vision.words
            memory = torch.cat([memory, said.tokens.to(memory.dtype)], dim=2)
            mask = torch.cat([said.mask.new_ones(len(memory), n), said.mask], dim=1)[:, None].expand(-1, t, -1)
        queries = self.object(fused.pooled)[:, None]
        queries = queries + newest_at_zero(t, queries)
        attention: dict[str, Tensor] = {}
        for i, block in enumerate(self.blocks):
            queries, weights = block(queries, memory, mask)
            attention |= {f"decoder_{name}_{i}": w for name, w in weights.items()}
        queries = self.norm(queries)
        logits = (cells_of_frames @ self.pointer(queries).unsqueeze(-1)).squeeze(-1).float()
        centre = logits.softmax(-1) @ centres
        reference = torch.cat([centre, torch.full_like(centre, PRIOR_EXTENT)], dim=-1)
        boxes = torch.sigmoid(self.box(queries).float() + torch.logit(reference, eps=1e-4))
        return Tube(
            queries=queries,
            boxes=boxes,
            logits=logits,
            centre=centre,
            grid=vision.grid,
            attention=attention,
            visible=None if self.visible is None else self.visible(queries).squeeze(-1).float(),
            when=None if self.when is None else self.when(queries, boxes),
        )
