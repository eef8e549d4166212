"""What all encoders share: a backbone on every frame that is looked at; a file each says what makes a moment of them.

B batch, T frames, V cameras, C H W image, c channels, h w grid, N = V·h·w, D width.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from vla_policy.backbone import Backbone, as_pictures, to_maps, to_tokens
from vla_policy.config import EncoderConfig
from vla_policy.contract import Shapes
from vla_policy.dialogue import Dialogue
from vla_policy.layers import place_encoding
from vla_policy.tokens import VisualTokens


class VisionEncoder(nn.Module):
    """Frames `(B, T, V, C, H, W)` uint8 → tokens of the newest moment, and what each single frame looks like.

    Args:
        looks: how many of the newest frames are looked at; all of them if left out.
    """

    def __init__(
        self,
        config: EncoderConfig,
        shapes: Shapes,
        width: int,
        heads: int,
        saved: Path | None = None,
        *,
        looks: int | None = None,
    ) -> None:
        super().__init__()
        self.looks = looks or shapes.frames
        self.backbone = Backbone(config, shapes.size, saved)
        self.frame_width = config.channels
        self.camera = nn.Parameter(torch.zeros(shapes.cameras, 1, width))
        self.place = nn.Linear(width, width)  # of a place's encoding: what attention is told about where tokens are

    def moment(self, per_frame: Tensor) -> Tensor:
        """Features of each frame `(B·V, T, c, h, w)` → tokens of the newest moment `(B·V, h·w, D)`."""
        raise NotImplementedError

    def forward(self, frames: Tensor, dialogue: Dialogue | None = None) -> VisualTokens:
        frames = frames[:, frames.shape[1] - self.looks :]
        b, t, v = frames.shape[:3]

        def talk(stage: int, maps: Tensor) -> Tensor:
            if dialogue is None or not dialogue.exchanges_after(stage):
                return maps
            size = (maps.shape[2], maps.shape[3])
            seen = dialogue.after(stage, to_tokens(maps).unflatten(0, (b, v * t)).flatten(1, 2))
            return to_maps(seen.unflatten(1, (v * t, -1)).flatten(0, 1), size)

        features = self.backbone(as_pictures(frames), talk)
        moment = self.moment(features.unflatten(0, (b * v, t)))
        grid = (features.shape[2], features.shape[3])
        place = self.place(place_encoding(grid, moment.shape[-1], moment.device))
        fused = moment.unflatten(0, (b, v)) + self.camera + place
        looks = to_tokens(features).unflatten(0, (b, v, t)).transpose(1, 2)
        return VisualTokens(
            fused=fused.flatten(1, 2).unsqueeze(1),
            frames=looks.flatten(2, 3),
            grid=grid,
        )
