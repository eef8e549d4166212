"""How vision and language meet: while both are still being encoded, and after.

An encoder calls its dialogue after every stage of its backbone. The dialogue lets the language encoder read on as far,
exchanges what the fusion wants exchanged at that stage, and hands vision back; so both go on from what they were told.

B batch, n visual tokens of all frames, c the backbone's width, L words, D width, M heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from vla_policy.tokens import FusedTokens, LanguageTokens, VisualTokens


class Exchange(Protocol):
    """What is said at one stage: `(B, n, c)` and words → both again, and attention maps by name."""

    def __call__(
        self, vision_Bnc: Tensor, words: LanguageTokens
    ) -> tuple[Tensor, LanguageTokens, dict[str, Tensor]]: ...


@dataclass(frozen=True, kw_only=True)
class LanguageSetup:
    """What every language encoder is built with: entries of the vocabulary, words of the longest text, width D and
    attention heads M of the tokens, and the folder of a saved checkpoint (see `VLAPolicy`).
    """

    vocabulary: int
    max_words: int
    width: int
    attention_heads: int
    saved: Path | None = None


class LanguageEncoder(nn.Module):
    """Token ids → words that know their sentence: an embedding, layers that exchanges may come between, a norm."""

    layers: nn.ModuleList

    def embed(self, tokens_BL: Tensor, mask_BL: Tensor) -> LanguageTokens:
        raise NotImplementedError

    def read_on(self, words: LanguageTokens, first: int, last: int) -> LanguageTokens:
        """Through layers `first` to `last`, the last one not included."""
        x = words.tokens
        for layer in self.layers[first:last]:
            x, _ = layer(x, words.mask)
        return LanguageTokens(tokens=x, mask=words.mask)

    def finish(self, words: LanguageTokens) -> LanguageTokens:
        raise NotImplementedError

    def forward(self, tokens_BL: Tensor, mask_BL: Tensor) -> LanguageTokens:
        return Dialogue(self, self.embed(tokens_BL, mask_BL)).words()


class Dialogue:
    """One forward pass's conversation. Without exchanges, which is the default, both sides encode on their own.

    Args:
        exchanges: by the stage of the backbone after which they happen.
        stages: stages of the backbone in all. The language encoder's layers are spread over them, and at least one of
            them, if there is any, comes after the last exchange.
    """

    def __init__(
        self,
        language: LanguageEncoder,
        words: LanguageTokens,
        exchanges: Mapping[int, Exchange] | None = None,
        stages: int = 1,
    ) -> None:
        self._language, self._words, self._stages = language, words, stages
        self._exchanges: Mapping[int, Exchange] = exchanges or {}
        self._read = 0
        self.attention: dict[str, Tensor] = {}

    def after(self, stage: int, vision_Bnc: Tensor) -> Tensor:
        """Vision's tokens as they go on from this stage."""
        if stage in self._exchanges:
            self._read_to(stage * len(self._language.layers) // self._stages)
            vision_Bnc, self._words, attention = self._exchanges[stage](vision_Bnc, self._words)
            self.attention |= {f"{name}_{stage}": weights for name, weights in attention.items()}
        return vision_Bnc

    def exchanges_after(self, stage: int) -> bool:
        return stage in self._exchanges

    def words(self) -> LanguageTokens:
        """The words, read to the end."""
        self._read_to(len(self._language.layers))
        return self._language.finish(self._words)

    def _read_to(self, layer: int) -> None:
        if layer > self._read:
            self._words = self._language.read_on(self._words, self._read, layer)
            self._read = layer


@dataclass(frozen=True, kw_only=True)
class FusionSetup:
    """What every fusion is built with: width D and attention heads M of the tokens, width of each frame's tokens, and
    the backbone's channels and stages.
    """

    width: int
    attention_heads: int
    frame_width: int
    channels: int
    stages: int


class Fusion(nn.Module):
    """Joins vision and words once both are encoded; built as `(config, setup)`. One that lets them meet before
    overrides `dialogue`.

    `pooled_width` is the last axis of what it pools; `voters` is how many decisions are to be taken, None for one.
    """

    pooled_width: int
    voters: int | None = None

    def dialogue(self, language: LanguageEncoder, words: LanguageTokens) -> Dialogue:
        return Dialogue(language, words)

    def forward(self, vision: VisualTokens, language: LanguageTokens) -> FusedTokens:
        raise NotImplementedError
