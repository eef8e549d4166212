"""What all encoders share: a backbone on every frame that is looked at; a file each says what makes a moment of them.

B batch, T frames, V cameras, C H W image, c channels, h w grid, N = V·h·w, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.policy import BackboneConfig
from vla_policy.backbone import Backbone, as_pictures, to_maps, to_tokens
from vla_policy.contract import Shapes
from vla_policy.dialogue import Dialogue
from vla_policy.layers import newest_at_zero, place_encoding
from vla_policy.tokens import VisualTokens


@dataclass(frozen=True, kw_only=True)
class EncoderSetup:
    """What every vision encoder is built with: the backbone's settings, the data's shapes, width D and attention heads
    M of the tokens, and the folder of a saved checkpoint (see `VLAPolicy`).
    """

    backbone: BackboneConfig
    shapes: Shapes
    width: int
    attention_heads: int
    saved: Path | None = None


class VisionEncoder(nn.Module):
    """Frames `(B, T, V, C, H, W)` uint8 → tokens of the newest moment, and what each single frame looks like.

    Args:
        looks: how many of the newest frames are looked at; all of them if left out.
    """

    def __init__(self, setup: EncoderSetup, *, looks: int | None = None) -> None:
        super().__init__()
        shapes, width = setup.shapes, setup.width
        self.looks = looks or shapes.frames
        self.backbone = Backbone(setup.backbone, shapes.size, setup.saved)
        self.frame_width = setup.backbone.channels
        self.camera = nn.Parameter(torch.zeros(shapes.cameras, 1, width))
        self.place = nn.Linear(width, width)  # of a place's encoding: what attention is told about where tokens are

    def moment(self, per_frame: Tensor) -> Tensor:
        """Features of each frame `(B·V, T, c, h, w)` → tokens of the newest moment `(B·V, h·w, D)`."""
        raise NotImplementedError

    def look(self, frames: Tensor, dialogue: Dialogue | None) -> Tensor:
        """What the backbone makes of the newest frames, `(B·V, T, c, h, w)`; between its stages language may be
        talked to.
        """
        frames = frames[:, frames.shape[1] - self.looks :]
        b, t, v = frames.shape[:3]

        def talk(stage: int, maps: Tensor) -> Tensor:
            if dialogue is None or not dialogue.exchanges_after(stage):
                return maps
            size = (maps.shape[2], maps.shape[3])
            seen = dialogue.after(stage, to_tokens(maps).unflatten(0, (b, v * t)).flatten(1, 2))
            return to_maps(seen.unflatten(1, (v * t, -1)).flatten(0, 1), size)

        return self.backbone(as_pictures(frames), talk).unflatten(0, (b * v, t))

    def forward(self, frames: Tensor, dialogue: Dialogue | None = None) -> VisualTokens:
        features = self.look(frames, dialogue)
        b, v = len(frames), frames.shape[2]
        moment = self.moment(features)
        grid = (features.shape[3], features.shape[4])
        place = self.place(place_encoding(grid, moment.shape[-1], moment.device))
        fused = moment.unflatten(0, (b, v)) + self.camera + place
        looks = to_tokens(features.flatten(0, 1)).unflatten(0, (b, v, -1)).transpose(1, 2)
        return VisualTokens(
            fused=fused.flatten(1, 2).unsqueeze(1),
            frames=looks.flatten(2, 3),
            grid=grid,
        )


class CoarseTimeEncoder(VisionEncoder):
    """Encoders that work over time token by token. They do so at half the backbone's resolution, where a token covers
    its neighbours, so that things can come and go; what they find is joined to the newest frame at full resolution.
    """

    def __init__(self, setup: EncoderSetup) -> None:
        super().__init__(setup)
        channels, width = setup.backbone.channels, setup.width
        self.down = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.spatial = nn.Conv2d(channels, width, 3, padding=1)
        self.project = nn.Linear(2 * width, width)

    def over_time(self, x_BTnD: Tensor) -> Tensor:
        """Tokens that know their place and time → tokens of the newest moment `(B, n, D)`."""
        raise NotImplementedError

    def moment(self, per_frame: Tensor) -> Tensor:
        b, t = per_frame.shape[:2]
        coarse = F.relu(self.down(per_frame.flatten(0, 1)))
        grid = (coarse.shape[2], coarse.shape[3])
        x = to_tokens(coarse).unflatten(0, (b, t))
        x = x + place_encoding(grid, x.shape[-1], x.device) + newest_at_zero(t, x)[:, None]
        newest = per_frame[:, -1]
        found = F.interpolate(to_maps(self.over_time(x), grid), size=newest.shape[-2:], mode="nearest")
        near = to_tokens(F.relu(self.spatial(newest)))
        tokens: Tensor = self.project(torch.cat([near, to_tokens(found).to(near.dtype)], dim=-1))
        return tokens
