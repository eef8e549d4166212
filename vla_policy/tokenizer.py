"""A word tokenizer trained in process from the instructions; unknown words get a token of their own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

PAD, UNKNOWN = 0, 1


class WordTokenizer:
    """Words to numbers, lower-cased; 0 is padding, 1 any unknown word."""

    def __init__(self, tokenizer: Tokenizer, max_words: int) -> None:
        self._tokenizer, self.max_words = tokenizer, max_words

    @classmethod
    def train(cls, texts: Iterable[str], max_words: int) -> WordTokenizer:
        tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.Lowercase()  # type: ignore[assignment]
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
        trainer = trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]"], show_progress=False)
        # Sorted, so that the numbers do not depend on the order in which episodes were recorded.
        tokenizer.train_from_iterator(sorted(set(texts)), trainer)
        return cls(tokenizer, max_words)

    @classmethod
    def load(cls, path: Path, max_words: int) -> WordTokenizer:
        try:
            return cls(Tokenizer.from_file(str(path)), max_words)
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"{path}: not a readable tokenizer ({error})") from None

    def save(self, path: Path) -> None:
        self._tokenizer.save(str(path))

    @property
    def size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids `(n, max_words)` int64 and mask `(n, max_words)` bool; longer texts are cut.

        Raises:
            ValueError: a text has no word.
        """
        ids = np.full((len(texts), self.max_words), PAD, dtype=np.int64)
        for row, encoding in enumerate(self._tokenizer.encode_batch(texts)):
            words = encoding.ids[: self.max_words]
            if not words:
                raise ValueError(f"instruction {texts[row]!r} has no words")
            ids[row, : len(words)] = words
        return ids, ids != PAD
