"""Tokenizers: instructions → ids, by `LanguageConfig.name`: made from the instructions, or come with a model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from configs.policy import LanguageConfig
from vla_policy.pretrained_source import read_source

PAD, UNKNOWN = 0, 1


class TextTokenizer:
    """What all tokenizers share.

    `FILES` are what a checkpoint folder with this tokenizer must hold, the tokenizer's own first; `unknown` is the id
    of an unknown word, None where no word is.
    """

    FILES: ClassVar[tuple[str, ...]] = ()
    unknown: ClassVar[int | None]

    def __init__(self, tokenizer: Tokenizer, max_words: int) -> None:
        self._tokenizer, self.max_words = tokenizer, max_words

    @classmethod
    def make(cls, config: LanguageConfig, texts: Iterable[str]) -> Self:
        """A tokenizer for a new policy that will read texts like these."""
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path, max_words: int) -> Self:
        """Read it from a checkpoint's folder.

        Raises:
            ValueError: the file cannot be used; the message names it.
        """
        file = folder / cls.FILES[0]
        try:
            return cls(Tokenizer.from_file(str(file)), max_words)
        except Exception as error:  # noqa: BLE001 - the library raises bare Exception
            raise ValueError(f"{file}: not a readable tokenizer ({error})") from None

    def save(self, folder: Path) -> None:
        file = folder / self.FILES[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        self._tokenizer.save(str(file))

    @property
    def size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids `(n, max_words)` int64 and mask `(n, max_words)` bool; longer texts are cut.

        Raises:
            ValueError: a text has no word.
        """
        ids = np.full((len(texts), self.max_words), PAD, dtype=np.int64)
        mask = np.zeros(ids.shape, dtype=bool)
        for row, encoding in enumerate(self._tokenizer.encode_batch(texts)):
            if not texts[row].strip() or all(encoding.special_tokens_mask):
                raise ValueError(f"instruction {texts[row]!r} has no words")
            words = encoding.ids[: self.max_words]
            ids[row, : len(words)], mask[row, : len(words)] = words, True
        return ids, mask

    def pieces(self, text: str) -> list[str]:
        """The words, or parts of words, that a text is read as; as many as its mask has True."""
        tokens: list[str] = self._tokenizer.encode(text).tokens[: self.max_words]
        return tokens


class WordTokenizer(TextTokenizer):
    """Words to numbers, lower-cased; 0 is padding, 1 any unknown word."""

    FILES = ("tokenizer.json",)
    unknown = UNKNOWN

    @classmethod
    def make(cls, config: LanguageConfig, texts: Iterable[str]) -> Self:
        return cls.train(texts, config.max_words)

    @classmethod
    def train(cls, texts: Iterable[str], max_words: int) -> Self:
        tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]"], show_progress=False)
        # Sorted, so that the numbers do not depend on the order in which episodes were recorded.
        tokenizer.train_from_iterator(sorted(set(texts)), trainer)
        return cls(tokenizer, max_words)


class PretrainedTokenizer(TextTokenizer):
    """The tokenizer that came with a pretrained text model, with the special tokens the model expects."""

    FILES = ("language/tokenizer.json", "language/config.json")
    unknown = None

    @classmethod
    def make(cls, config: LanguageConfig, texts: Iterable[str]) -> Self:
        return cls.read(config.pretrained.source, config.max_words)

    @classmethod
    def read(cls, source: str, max_words: int) -> Self:
        """From a local folder, or by hub name.

        Raises:
            ValueError: it is missing or of no use, or its special tokens leave no room for words.
        """
        tokenizer = read_source(source, "tokenizer", _read_tokenizer)
        extra = int(tokenizer.num_special_tokens_to_add(False))
        if max_words <= extra:
            raise ValueError(f"language.max_words {max_words} must exceed the {extra} special tokens of {source!r}")
        # Cut by the library, special tokens stay; cut by us, the closing one would go.
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_words)
        return cls(tokenizer, max_words)


TOKENIZERS: dict[str, type[TextTokenizer]] = {
    "transformer": WordTokenizer,
    "bag_of_words": WordTokenizer,
    "pretrained": PretrainedTokenizer,
}


def _read_tokenizer(source: str) -> Tokenizer:
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(source, trust_remote_code=False, use_fast=True)
    fast = getattr(found, "backend_tokenizer", None)
    if not isinstance(fast, Tokenizer):
        raise ValueError(f"{type(found).__name__} is not a fast tokenizer, and only those can be saved on their own")
    if set(fast.get_vocab()) <= set(found.all_special_tokens):  # what the library makes up when it finds no file
        raise ValueError("no vocabulary")
    return fast
