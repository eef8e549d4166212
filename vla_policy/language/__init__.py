"""Language encoders: token ids `(B, L)` and mask → `LanguageTokens`. One file each.

Built as `(config, setup)`: the encoder's own settings, None if it has none, and what all are built with. Each one's
tokenizer has the same name in `vla_policy.tokenizer.TOKENIZERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vla_policy.exchange import LanguageEncoder, LanguageSetup
from vla_policy.language.bag_of_words import BagOfWords
from vla_policy.language.pretrained import PretrainedText
from vla_policy.language.transformer import TextTransformer

LANGUAGES: dict[str, Callable[[Any, LanguageSetup], LanguageEncoder]] = {
    "transformer": TextTransformer,
    "bag_of_words": BagOfWords,
    "pretrained": PretrainedText,
}
