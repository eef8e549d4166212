"""What all vision encoders share: a backbone on every frame. Each encoder's file says how frames become current tokens.

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
from vla_policy.exchange import CrossModalExchange
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
    """Frames `(B, T, V, C, H, W)` uint8 → current tokens, and the features of each frame on its own.

    Args:
        setup: what every encoder is built with.
        grounded_frames: number of the newest frames that are encoded, and in which the target is found; all of them if
            left out.
    """

    def __init__(self, setup: EncoderSetup, *, grounded_frames: int | None = None) -> None:
        super().__init__()
        shapes, width = setup.shapes, setup.width
        self.grounded_frames = grounded_frames or shapes.frames
        self.backbone = Backbone(setup.backbone, shapes.size, setup.saved)
        self.frame_width = self.backbone.channels
        self.camera = nn.Parameter(torch.zeros(shapes.cameras, 1, width))
        self.place: nn.Module = nn.Linear(
            width, width
        )  # of the position encoding: so that attention can tell places apart

    def current_tokens(self, per_frame: Tensor) -> Tensor:
        """Features of each frame `(B·V, T, c, h, w)` → tokens of the newest frame with its motion `(B·V, h·w, D)`."""
        raise NotImplementedError

    def encode_frames(self, frames: Tensor, exchange: CrossModalExchange | None) -> Tensor:
        """The backbone's features of the newest frames, `(B·V, T, c, h, w)`. Between its stages there may be an
        exchange with the text. Frames may also be what `look` made of each of them.
        """
        frames = frames[:, -self.grounded_frames :]
        b, t, v = frames.shape[:3]

        def exchanged(stage: int, maps: Tensor) -> Tensor:
            if exchange is None or not exchange.happens_after(stage):
                return maps
            size = (maps.shape[2], maps.shape[3])
            tokens = exchange.after(stage, to_tokens(maps).unflatten(0, (b, v * t)).flatten(1, 2))
            return to_maps(tokens.unflatten(1, (v * t, -1)).flatten(0, 1), size)

        if frames.is_floating_point():
            maps = frames.transpose(1, 2).flatten(0, 2).contiguous(memory_format=torch.channels_last)
            features = self.backbone.resume(maps, self.alone(exchange), exchanged)
        else:
            features = self.backbone(as_pictures(frames, self.camera.dtype), exchanged)
        return features.unflatten(0, (b * v, t))

    def alone(self, exchange: CrossModalExchange | None) -> int:
        """The stage of the backbone up to which a frame's features depend on no other frame and no text."""
        last = self.backbone.stages - 1
        return last if exchange is None else next(filter(exchange.happens_after, range(last)), last)

    def look(self, frames: Tensor, stage: int) -> Tensor:
        """What the backbone makes of each frame up to a stage, `(B, T, V, C, H, W)` uint8 → `(B, T, V, c, h, w)`. With
        the stage that `alone` names, it can take the frames' place: one that is part of many decisions is encoded once.
        """
        b, t, v = frames.shape[:3]
        features = self.backbone.begin(as_pictures(frames, self.camera.dtype), stage)
        return features.unflatten(0, (b, v, t)).transpose(1, 2)

    def forward(self, frames: Tensor, exchange: CrossModalExchange | None = None) -> VisualTokens:
        features = self.encode_frames(frames, exchange)
        b, v = frames.shape[0], frames.shape[2]
        current = self.current_tokens(features)
        grid = (features.shape[3], features.shape[4])
        place = self.place(place_encoding(grid, current.shape[-1], self.camera))
        fused = current.unflatten(0, (b, v)) + (self.camera + place).to(current.dtype)
        frame_features = to_tokens(features.flatten(0, 1)).unflatten(0, (b, v, -1)).transpose(1, 2)
        return VisualTokens(
            fused=fused.flatten(1, 2).unsqueeze(1),
            frames=frame_features.flatten(2, 3),
            grid=grid,
        )


class CoarseTimeEncoder(VisionEncoder):
    """Encoders that process time separately for each place. They do so at half the backbone's resolution, where a token
    covers its neighbours as well, so that objects can enter and leave it. The result is joined to the newest frame at
    full resolution.
    """

    def __init__(self, setup: EncoderSetup) -> None:
        super().__init__(setup)
        channels, width = self.backbone.channels, setup.width
        self.down = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.spatial = nn.Conv2d(channels, width, 3, padding=1)
        self.project = nn.Linear(2 * width, width)

    def over_time(self, x_BTnD: Tensor) -> Tensor:
        """Tokens with the encoding of their place and time → tokens of the newest frame `(B, n, D)`."""
        raise NotImplementedError

    def current_tokens(self, per_frame: Tensor) -> Tensor:
        b, t = per_frame.shape[:2]
        coarse = F.relu(self.down(per_frame.flatten(0, 1)))
        grid = (coarse.shape[2], coarse.shape[3])
        x = to_tokens(coarse).unflatten(0, (b, t))
        width, like = x.shape[-1], self.down.weight
        x = x + place_encoding(grid, width, like) + newest_at_zero(t, width, like)[:, None]
        newest = per_frame[:, -1]
        motion = F.interpolate(to_maps(self.over_time(x), grid), size=newest.shape[-2:], mode="nearest")
        appearance = to_tokens(F.relu(self.spatial(newest)))
        joined = torch.cat([appearance, to_tokens(motion).to(appearance.dtype)], dim=-1)
        tokens: Tensor = self.project(joined)
        return tokens
