"""The built-in spatial backbone: a small convolutional network, trained from scratch.

B' any batch, C H W image, c channels, h = H/4, w = W/4.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


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


class SmallBackbone(nn.Module):
    """Pictures `(B', 3, H, W)` float in [0, 1] → features `(B', c, H/4, W/4)`.

    The stem halves the resolution twice at once, narrow at first: on a CPU the cost of a stem is the memory that its
    large maps move. Expects channels_last input, on which convolutions are about three times faster there.
    """

    def __init__(self, channels: int = 32, layers: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels // 2, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1),
        )
        self.body = nn.Sequential(*(ResidualConv(channels) for _ in range(layers)))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.body(F.relu(self.stem(pictures)))
