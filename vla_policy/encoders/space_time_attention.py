"""Attention over the tokens of all frames, `softmax(QKᵀ/√d)V`: over space and time jointly, or divided into time, then
space (Bertasius et al. 2021, TimeSformer).

B batch, T frames, n tokens per frame, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from configs.policy import SpaceTimeAttentionConfig
from vla_policy.layers import FusedSelfAttentionBlock
from vla_policy.vision import CoarseTimeEncoder, EncoderSetup


class DividedBlock(nn.Module):
    """Each token attends to its place in all frames, then to all places in its frame. Memory grows linearly with T."""

    def __init__(self, width: int, attention_heads: int) -> None:
        super().__init__()
        self.time = FusedSelfAttentionBlock(width, attention_heads, feed=False)
        self.space = FusedSelfAttentionBlock(width, attention_heads)

    def forward(self, x_BTnD: Tensor) -> Tensor:
        b, t, n = x_BTnD.shape[:3]
        by_place = self.time(x_BTnD.transpose(1, 2).flatten(0, 1))
        by_frame = by_place.unflatten(0, (b, n)).transpose(1, 2).flatten(0, 1)
        mixed: Tensor = self.space(by_frame).unflatten(0, (b, t))
        return mixed


class JointBlock(nn.Module):
    """Each token attends to all places in all frames."""

    def __init__(self, width: int, attention_heads: int) -> None:
        super().__init__()
        self.space_time = FusedSelfAttentionBlock(width, attention_heads)

    def forward(self, x_BTnD: Tensor) -> Tensor:
        mixed: Tensor = self.space_time(x_BTnD.flatten(1, 2)).unflatten(1, x_BTnD.shape[1:3])
        return mixed


class SpaceTimeAttentionEncoder(CoarseTimeEncoder):
    """Layers of one kind over the tokens of all frames, of which those of the newest frame are kept."""

    def __init__(self, config: SpaceTimeAttentionConfig, setup: EncoderSetup) -> None:
        super().__init__(setup)
        block = {"joint": JointBlock, "divided": DividedBlock}[config.attention]
        self.blocks = nn.ModuleList(block(setup.width, setup.attention_heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(setup.width)

    def over_time(self, x_BTnD: Tensor) -> Tensor:
        for block in self.blocks:
            x_BTnD = block(x_BTnD)
        newest: Tensor = self.norm(x_BTnD[:, -1])
        return newest
