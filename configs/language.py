"""Configuration of the language encoder, one dataclass for each with settings of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs.checks import check_kinds, check_least, check_shares, refuse_unused

LanguageName = Literal["transformer", "bag_of_words", "pretrained"]


@dataclass(frozen=True, kw_only=True)
class TextTransformerConfig:
    """A small transformer, trained from scratch.

    Args:
        layers: transformer layers. Fusions that exchange between the encoders' layers spread them over the stages of
            the backbone. With one layer all exchanges come before it.
    """

    layers: int = 1

    def __post_init__(self) -> None:
        check_kinds("language.transformer", self)
        check_least("language.transformer", self, layers=1)


@dataclass(frozen=True, kw_only=True)
class PretrainedTextConfig:
    """A text model of `transformers`.

    Args:
        source: local folder or hub name of the model.
        frozen: whether the model stays as it is; its output is then cached per instruction.
        dropout: probability with which projected tokens lose features in training; in TubeDETR 0.1.
        norm_epsilon: what the layer norm of the projected tokens adds to their variance; in TubeDETR 1e-12.
    """

    source: str = ""
    frozen: bool = True
    dropout: float = 0.0
    norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        check_kinds("language.pretrained", self)
        check_shares("language.pretrained", self, "dropout")
        if self.norm_epsilon <= 0:
            raise ValueError(f"language.pretrained.norm_epsilon {self.norm_epsilon} must be above 0")


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """Text.

    Args:
        name: "transformer" is trained from scratch; "bag_of_words" is a control that knows no word order, has no layers
            and no settings; "pretrained" loads a text model, which is read to its end before the first exchange.
        max_words: longer instructions are cut to this many text tokens.

    The other fields are the settings of the language encoder of that name.
    """

    name: LanguageName = "transformer"
    max_words: int = 20
    transformer: TextTransformerConfig = field(default_factory=TextTransformerConfig)
    pretrained: PretrainedTextConfig = field(default_factory=PretrainedTextConfig)

    def __post_init__(self) -> None:
        check_kinds("language", self)
        check_least("language", self, max_words=1)
        refuse_unused("language", self)
        if self.name == "pretrained" and not self.pretrained.source:
            raise ValueError(
                "language.name 'pretrained' needs language.pretrained.source, a local folder or a hub name"
            )
