"""Language encoders: token ids `(B, L)` and mask → `LanguageTokens`. One file each."""

from __future__ import annotations

from torch import nn

from vla_policy.language.transformer import TextTransformer

LANGUAGES: dict[str, type[nn.Module]] = {"transformer": TextTransformer}
