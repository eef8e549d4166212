"""How vision and language exchange information: while both are still being encoded, and after.

A vision encoder calls the exchange after every stage of its backbone. The exchange first applies the language encoder's
layers that belong before this stage. Then the fusion's interaction of this stage, if there is one, changes the tokens
of both sides, and both encoders continue with the result.

B batch, n visual tokens of all frames, c the backbone's width, L text tokens, D width, M attention heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from vla_policy.tokens import FusedTokens, LanguageTokens, VisualTokens


class StageInteraction(Protocol):
    """What is exchanged after one stage: `(B, n, c)` and text tokens → both again, and attention maps by name."""

    def __call__(
        self, vision_Bnc: Tensor, text: LanguageTokens
    ) -> tuple[Tensor, LanguageTokens, dict[str, Tensor]]: ...


@dataclass(frozen=True, kw_only=True)
class LanguageSetup:
    """What every language encoder is built with: entries of the vocabulary, text tokens of the longest text, width D
    and attention heads M of the tokens, and the folder of a saved checkpoint (see `VLAPolicy`).
    """

    vocabulary: int
    max_words: int
    width: int
    attention_heads: int
    saved: Path | None = None


class LanguageEncoder(nn.Module):
    """Token ids → text tokens in context, in three steps: an embedding, layers with room for exchanges between them,
    and a norm.
    """

    layers: nn.ModuleList

    def embed(self, tokens_BL: Tensor, mask_BL: Tensor) -> LanguageTokens:
        raise NotImplementedError

    def encode(self, text: LanguageTokens, first: int, last: int) -> LanguageTokens:
        """Apply the layers from `first` up to `last`, which is not included."""
        x = text.tokens
        for layer in self.layers[first:last]:
            x, _ = layer(x, text.mask)
        return LanguageTokens(tokens=x, mask=text.mask)

    def finish(self, text: LanguageTokens) -> LanguageTokens:
        raise NotImplementedError

    def forward(self, tokens_BL: Tensor, mask_BL: Tensor) -> LanguageTokens:
        return CrossModalExchange(self, self.embed(tokens_BL, mask_BL)).encoded_text()


class CrossModalExchange:
    """The exchange of one forward pass. Without interactions, which is the default, both sides encode on their own.

    Args:
        language: the language encoder.
        text: its embedded tokens.
        interactions: by the stage of the backbone after which they happen.
        stages: stages of the backbone in all. The language encoder's layers are spread over them, and at least one of
            them, if there is any, comes after the last interaction.
    """

    def __init__(
        self,
        language: LanguageEncoder,
        text: LanguageTokens,
        interactions: Mapping[int, StageInteraction] | None = None,
        stages: int = 1,
    ) -> None:
        self._language, self._text, self._stages = language, text, stages
        self._interactions: Mapping[int, StageInteraction] = interactions or {}
        self._encoded = 0  # layers of the language encoder that were applied
        self.attention: dict[str, Tensor] = {}

    def happens_after(self, stage: int) -> bool:
        """Whether anything is exchanged after this stage."""
        return stage in self._interactions

    def after(self, stage: int, vision_Bnc: Tensor) -> Tensor:
        """The visual tokens with which the backbone continues after this stage."""
        if stage in self._interactions:
            self._encode_up_to(stage * len(self._language.layers) // self._stages)
            vision_Bnc, self._text, attention = self._interactions[stage](vision_Bnc, self._text)
            self.attention |= {f"{name}_{stage}": weights for name, weights in attention.items()}
        return vision_Bnc

    def encoded_text(self) -> LanguageTokens:
        """The text tokens after all layers."""
        self._encode_up_to(len(self._language.layers))
        return self._language.finish(self._text)

    def _encode_up_to(self, layer: int) -> None:
        if layer > self._encoded:
            self._text = self._language.encode(self._text, self._encoded, layer)
            self._encoded = layer


@dataclass(frozen=True, kw_only=True)
class FusionSetup:
    """What every fusion is built with: width D and attention heads M of the tokens, width of each frame's features,
    and the backbone's channels and stages.
    """

    width: int
    attention_heads: int
    frame_width: int
    channels: int
    stages: int


class Fusion(nn.Module):
    """Joins vision and language once both are encoded; built as `(config, setup)`. A fusion that exchanges features
    between the encoders' layers too overrides `exchange`.

    `pooled_width` is the last axis of the pooled tokens. `voters` is the number of decisions that are counted, None if
    there is only one.
    """

    pooled_width: int
    voters: int | None = None

    def exchange(self, language: LanguageEncoder, text: LanguageTokens) -> CrossModalExchange:
        return CrossModalExchange(language, text)

    def forward(self, vision: VisualTokens, language: LanguageTokens) -> FusedTokens:
        raise NotImplementedError
