"""Language encoders: token ids `(B, L)` and mask → `LanguageTokens`. One file each.

Built as `(config, shapes, width, heads, saved)`; see `VLAPolicy` for `saved`. Each one's tokenizer has the same name in
`vla_policy.tokenizer.TOKENIZERS`.
"""

from __future__ import annotations

from torch import nn

from vla_policy.language.pretrained import PretrainedText
from vla_policy.language.transformer import TextTransformer

LANGUAGES: dict[str, type[nn.Module]] = {"transformer": TextTransformer, "pretrained": PretrainedText}
