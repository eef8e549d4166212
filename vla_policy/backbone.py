"""The spatial backbone, which encodes every frame on its own: a stem, trained from scratch or from timm, and layers.

B' pictures, C H W image, c channels, h w grid.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.encoder import SMALL, BackboneConfig

AfterStage = Callable[[int, Tensor], Tensor]  # a stage's number and its maps (B', c, h, w) → the maps to continue with


class ResidualConv(nn.Module):
    """`relu(x + conv3x3(relu(conv3x3(x))))` at constant width and resolution."""

    def __init__(self, channels: int, layers: int = 1) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i, conv in enumerate(self.convs):
            y = conv(y if i == 0 else F.relu(y))
        return F.relu(x + y)


class SmallStem(nn.Sequential):
    """Pictures `(B', 3, H, W)` float in [0, 1] → `(B', c, H/4, W/4)`.

    Halves the resolution twice at once, narrow at first: on a CPU the cost of a stem is the memory that its large maps
    move. Expects channels_last input, on which convolutions are about three times faster there.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(3, channels // 2, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1),
        )


class Backbone(nn.Module):
    """Pictures `(B', 3, H, W)` float in [0, 1] → features `(B', c, h, w)`.

    A stage ends after the stem and after every layer; there are `stages` of them. `after_stage` gets the output of each
    stage and may change it.
    """

    def __init__(self, config: BackboneConfig, size: int, saved: Path | None = None) -> None:
        super().__init__()
        self.channels, self.stages = config.channels, config.layers + 1
        self.whole = config.layers == 0  # the stem's features are taken as they are
        self.stem: nn.Module
        if config.name == SMALL:
            self.stem = SmallStem(config.channels)
        else:
            from vla_policy.timm_stem import TimmStem

            self.stem = stem = TimmStem(config, size, saved)
            self.channels = stem.channels
        self.body = nn.ModuleList(ResidualConv(config.channels) for _ in range(config.layers))

    def forward(self, pictures: Tensor, after_stage: AfterStage | None = None) -> Tensor:
        return self.resume(self.begin(pictures, 0), 0, after_stage)

    def begin(self, pictures: Tensor, stage: int) -> Tensor:
        """The output of this stage, if nothing is changed after earlier ones."""
        features = self.stem(pictures) if self.whole else F.relu(self.stem(pictures))
        for layer in list(self.body)[:stage]:
            features = layer(features)
        return features

    def resume(self, features: Tensor, stage: int, after_stage: AfterStage | None = None) -> Tensor:
        """Go on from the output of a stage."""
        if after_stage is not None:
            features = after_stage(stage, features)
        for number, layer in enumerate(list(self.body)[stage:], start=stage + 1):
            features = layer(features)
            if after_stage is not None:
                features = after_stage(number, features)
        return features


def to_tokens(maps: Tensor) -> Tensor:
    """`(B', c, h, w)` → `(B', h·w, c)`; free of copies for channels_last maps."""
    return maps.flatten(2).transpose(1, 2)


def to_maps(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """`(B', h·w, c)` → `(B', c, h, w)`, channels_last without a copy."""
    return tokens.unflatten(1, grid).permute(0, 3, 1, 2)


def as_pictures(frames: Tensor, dtype: torch.dtype) -> Tensor:
    """`(B, T, V, C, H, W)` uint8 → `(B·V·T, C, H, W)` in [0, 1], channels_last."""
    full = torch.promote_types(dtype, torch.float32)
    pictures = frames.permute(0, 2, 1, 3, 4, 5).flatten(0, 2).to(full).div_(255.0).to(dtype)
    return pictures.contiguous(memory_format=torch.channels_last)
