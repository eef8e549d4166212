"""What goes into the policy and what comes out.

B batch, T frames, V cameras, C H W image, L text tokens, P proprioception, S action-chunk steps, A action dimensions,
N visual tokens per frame, M attention heads.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What the policy may see.

    frames `(B, T, V, C, H, W)` uint8, oldest first, or what `VisionEncoder.look` made of each; agent_pos `(B, T, P)`
    float32 in physical units, aligned with the frames; tokens `(B, L)` int64 and token_mask `(B, L)` bool, False where
    there is padding.

    frame_mask `(B, T)` and pixel_mask `(B, H, W)`, both bool: False for frames behind the end of a video and for pixels
    beside its pictures, where videos of several lengths and forms share a batch. Only policies that do nothing but
    ground take them (see `PolicyConfig.grounds_videos`); elsewhere they are None.
    """

    frames: Tensor
    agent_pos: Tensor
    tokens: Tensor
    token_mask: Tensor
    frame_mask: Tensor | None = None
    pixel_mask: Tensor | None = None

    def to(self, device: torch.device) -> Observation:
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {name: x.to(device, non_blocking=True) for name, x in parts.items() if x is not None}
        return Observation(**moved)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """An observation with its labels.

    action `(B, S, A)` in [-1, 1] with action_mask `(B, S)`, False past the episode's end; boxes `(B, T, 4)` of the
    target in the first camera as (cx, cy, w, h) in [0, 1] with visible `(B, T)`; event `(B, T)` bool, True while the
    instruction's event holds. For a policy with K > 1 tubes (see `PolicyConfig.tubes`), more_boxes `(B, T, K - 1, 4)`
    and more_visible `(B, T, K - 1)` are those of the others, else None.
    """

    observation: Observation
    action: Tensor
    action_mask: Tensor
    boxes: Tensor
    visible: Tensor
    event: Tensor
    more_boxes: Tensor | None = None
    more_visible: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        labels: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "observation"}
        moved = {name: x.to(device, non_blocking=True) for name, x in labels.items() if x is not None}
        return Batch(observation=self.observation.to(device), **moved)

    @property
    def tubes(self) -> tuple[Tensor, Tensor]:
        """Boxes `(B, T, K, 4)` of all tubes, and whether each is visible `(B, T, K)`."""
        boxes, visible = self.boxes[:, :, None], self.visible[:, :, None]
        if self.more_boxes is None or self.more_visible is None:
            return boxes, visible
        return torch.cat([boxes, self.more_boxes], dim=2), torch.cat([visible, self.more_visible], dim=2)

    def __len__(self) -> int:
        return len(self.action)


@dataclass(frozen=True, kw_only=True)
class Aux:
    """What the policy predicts beside its actions, and what it attends to.

    boxes `(B, T, 4)` predicted, tubes `(B, T, K, 4)` all of them (see `PolicyConfig.tubes`), location `(B, T, h, w)`
    the probability of the target's place in each frame, and attention maps by name: `(B, M, queries, keys)` each, with
    `V·h·w` visual tokens in row-major order per camera.
    visible `(B, T)`: probability that the target is visible in a frame.
    start_logits and end_logits `(B, T)`: of the instruction's event beginning and ending in each frame; `start` and
    `end` are the probabilities, which add up to 1. during `(B, T)`: probability that a frame is part of it.
    These are None if the policy was not trained to predict them.
    """

    boxes: Tensor | None = None
    tubes: Tensor | None = None
    location: Tensor | None = None
    attention: dict[str, Tensor] = field(default_factory=dict)
    visible: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    during: Tensor | None = None

    @property
    def start(self) -> Tensor | None:
        return None if self.start_logits is None else self.start_logits.softmax(-1)

    @property
    def end(self) -> Tensor | None:
        return None if self.end_logits is None else self.end_logits.softmax(-1)


@dataclass(frozen=True, kw_only=True)
class ActionChunk:
    """Actions `(B, S, A)` in [-1, 1] for the next S control steps, and what else the policy predicts and attends to."""

    action: Tensor
    aux: Aux


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Sizes that depend on the data, and are no settings."""

    frames: int
    cameras: int
    size: int
    proprioception: int
    actions: int
    vocabulary: int


@runtime_checkable
class Described(Protocol):
    """A part of the policy that `PolicyConfig` alone cannot build, such as a pretrained model. It writes its structure
    into the checkpoint's folder, and is built from there when that checkpoint is loaded.
    """

    def describe(self, folder: Path) -> None: ...


def fake_batch(shapes: Shapes, chunk: int, *, batch: int = 2, words: int = 7, seed: int = 0, tubes: int = 1) -> Batch:
    """A random batch of the right shapes, for tests and for measuring cost."""
    g = torch.Generator().manual_seed(seed)
    b, t, v, s = batch, shapes.frames, shapes.cameras, shapes.size
    lengths = torch.randint(2, words + 1, (b, 1), generator=g)
    frames = torch.randint(0, 256, (b, t, v, s, s, 3), generator=g, dtype=torch.uint8)
    centre, extent = torch.rand(b, t, 2, generator=g), torch.rand(b, t, 2, generator=g)
    more = {}
    if tubes > 1:
        more = {
            "more_boxes": 0.1 + 0.2 * torch.rand(b, t, tubes - 1, 4, generator=g),
            "more_visible": torch.ones(b, t, tubes - 1, dtype=torch.bool),
        }
    return Batch(
        observation=Observation(
            frames=frames.movedim(-1, 3),
            agent_pos=torch.rand(b, t, shapes.proprioception, generator=g),
            tokens=torch.randint(2, shapes.vocabulary, (b, words), generator=g),
            token_mask=torch.arange(words)[None] < lengths,
        ),
        action=torch.rand(b, chunk, shapes.actions, generator=g) * 2 - 1,
        action_mask=torch.ones(b, chunk, dtype=torch.bool),
        boxes=torch.cat([0.2 + 0.6 * centre, 0.05 + 0.2 * extent], dim=-1),
        visible=torch.ones(b, t, dtype=torch.bool),
        event=torch.ones(b, t, dtype=torch.bool),
        **more,
    )
