"""Language encoders: token ids `(B, L)` and mask → `LanguageTokens`. One file each.

Built as `(config, shapes, width, heads, saved)`; see `VLAPolicy` for `saved`. Each one's tokenizer has the same name in
`vla_policy.tokenizer.TOKENIZERS`.
"""

from __future__ import annotations

from vla_policy.dialogue import LanguageEncoder
from vla_policy.language.bag_of_words import BagOfWords
from vla_policy.language.pretrained import PretrainedText
from vla_policy.language.transformer import TextTransformer

LANGUAGES: dict[str, type[LanguageEncoder]] = {
    "transformer": TextTransformer,
    "bag_of_words": BagOfWords,
    "pretrained": PretrainedText,
}
