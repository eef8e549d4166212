"""Cross-attention in one direction: the text attends to vision, `CA(f_l, f_v, f_v)`, or
vision to the text, `CA(f_v, f_l, f_l)`.

B batch, K newest frames, N visual tokens per frame, L text tokens, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from configs.policy import CrossAttentionConfig
from vla_policy.exchange import Fusion, FusionSetup
from vla_policy.layers import Attention, FeedForward, Pool
from vla_policy.tokens import FusedTokens, LanguageTokens, VisualTokens


class CrossAttentionLayer(nn.Module):
    """`x + CA(x, y, y)`, then a feed-forward layer (pre-norm); `y` stays as it is."""

    def __init__(self, width: int, attention_heads: int) -> None:
        super().__init__()
        self.norm_reader, self.norm_read, self.norm_feed = (nn.LayerNorm(width) for _ in range(3))
        self.attention = Attention(width, attention_heads)
        self.feed = FeedForward(width)

    def forward(self, x_BQD: Tensor, y_BKD: Tensor, mask_BK: Tensor | None) -> tuple[Tensor, Tensor]:
        read, weights = self.attention(self.norm_reader(x_BQD), self.norm_read(y_BKD), mask_BK)
        x_BQD = x_BQD + read
        return x_BQD + self.feed(self.norm_feed(x_BQD)), weights


class CrossAttentionFusion(Fusion):
    """The side that is attended to stays the same in all layers."""

    def __init__(self, config: CrossAttentionConfig, setup: FusionSetup) -> None:
        super().__init__()
        self.direction = config.direction
        self.layers = nn.ModuleList(
            CrossAttentionLayer(setup.width, setup.attention_heads) for _ in range(config.layers)
        )
        self.pool = Pool(config.output)
        self.pooled_width = self.pool.times * setup.width

    def forward(self, vision: VisualTokens, language: LanguageTokens) -> FusedTokens:
        grid = vision.fused.shape[1:3]
        v, text = vision.fused.flatten(1, 2), language.tokens
        attention = {}
        for i, layer in enumerate(self.layers):
            if self.direction == "language_reads_vision":
                text, weights = layer(text, v, None)
            else:
                v, weights = layer(v, text, language.mask)
            attention[f"{self.direction}_{i}"] = weights
        pooled = self.pool(v, text, language.mask)
        return FusedTokens(vision=v.unflatten(1, grid), language=text, pooled=pooled, attention=attention)
