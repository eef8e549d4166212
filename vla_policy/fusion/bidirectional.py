"""Bidirectional cross-attention: `f_v' = f_v + CA(f_v, f_l, f_l)`, `f_l' = f_l + CA(f_l, f_v, f_v)`, stacked.

B batch, K newest frames, N visual tokens per frame, L text tokens, D width, h w grid of one camera, B' pictures.
"""

from __future__ import annotations

from torch import Tensor, nn

from configs.policy import BidirectionalConfig
from vla_policy.exchange import CrossModalExchange, Fusion, FusionSetup, LanguageEncoder
from vla_policy.fusion.interactions import StageExchanges
from vla_policy.layers import Attention, Coarse, FeedForward, Pool
from vla_policy.tokens import FusedTokens, LanguageTokens, VisualTokens


class BidirectionalLayer(nn.Module):
    """Both directions read the same inputs; each then passes its own feed-forward layer (pre-norm)."""

    def __init__(self, width: int, attention_heads: int) -> None:
        super().__init__()
        self.norm_v, self.norm_l = nn.LayerNorm(width), nn.LayerNorm(width)
        self.vision_reads, self.language_reads = Attention(width, attention_heads), Attention(width, attention_heads)
        self.norm_feed_v, self.norm_feed_l = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed_v, self.feed_l = FeedForward(width), FeedForward(width)

    def forward(self, v_BND: Tensor, l_BLD: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        v, l = self.norm_v(v_BND), self.norm_l(l_BLD)  # noqa: E741 - the paper's letters
        from_language, vision_weights = self.vision_reads(v, l, mask_BL)
        from_vision, language_weights = self.language_reads(l, v)
        v_BND, l_BLD = v_BND + from_language, l_BLD + from_vision
        v_BND = v_BND + self.feed_v(self.norm_feed_v(v_BND))
        l_BLD = l_BLD + self.feed_l(self.norm_feed_l(l_BLD))
        return v_BND, l_BLD, vision_weights, language_weights


class BidirectionalFusion(Fusion):
    """Stacked layers. The pooled output joins the means of both sides: `[mean f_v'; mean f_l']` or
    `mean f_v' + mean f_l'`. `during` adds the same exchange between the layers of the two encoders. With a `stride`,
    the layers work on means of neighbouring places, and what they change is added to each of those.
    """

    def __init__(self, config: BidirectionalConfig, setup: FusionSetup) -> None:
        super().__init__()
        self.exchanges = StageExchanges("bidirectional", config.during, setup)
        self.layers = nn.ModuleList(
            BidirectionalLayer(setup.width, setup.attention_heads) for _ in range(config.layers)
        )
        self.pool, self.stride = Pool(config.output), config.stride
        self.pooled_width = self.pool.times * setup.width

    def exchange(self, language: LanguageEncoder, text: LanguageTokens) -> CrossModalExchange:
        return self.exchanges.exchange(language, text)

    def forward(self, vision: VisualTokens, language: LanguageTokens) -> FusedTokens:
        _, k, n, _ = vision.fused.shape
        v, text = vision.fused.flatten(1, 2), language.tokens
        places = Coarse(vision.grid, self.stride)
        fine, v = v, places.means(v)
        before, attention = v, {}
        for i, layer in enumerate(self.layers):
            v, text, vision_weights, language_weights = layer(v, text, language.mask)
            attention[f"vision_reads_language_{i}"] = places.spread(vision_weights.mT).mT
            attention[f"language_reads_vision_{i}"] = places.spread(language_weights, share=True)
        pooled = self.pool(v, text, language.mask)
        if self.stride > 1:
            v = fine + places.spread((v - before).mT).mT
        return FusedTokens(vision=v.unflatten(1, (k, n)), language=text, pooled=pooled, attention=attention)
