"""Tokenizers: instructions → ids, by `LanguageConfig.name`. They are made from instructions, or come with a model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from configs.policy import LanguageConfig
from vla_policy.pretrained_source import read_source

PAD, UNKNOWN = 0, 1
WORD = re.compile(r"\w+|[^\w\s]+")  # as people see them, whatever a tokenizer makes of them
NAMED = 3  # words that a message lists
SHOWN = 30  # characters of a word that it shows


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a tokenizer reads a text, in words for people.

    kept: the words that reach the policy; dropped: those cut off because the text is longer than `max_words` allows, in
    their order; unknown: those of the kept ones that the vocabulary does not hold, each once.
    """

    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def notice(self) -> str:
        """One sentence about what the policy cannot read; "" if it reads everything."""
        parts = []
        if self.unknown:
            parts.append(f"does not know {_listed(self.unknown)}")
        if self.dropped:
            parts.append(f"reads only the first {_words(len(self.kept))} and drops {_listed(self.dropped)}")
        return f"the policy {', and '.join(parts)}" if parts else ""


class TextTokenizer:
    """What all tokenizers share.

    `FILES` are what a checkpoint folder with this tokenizer must hold, the tokenizer's own first; `unknown` is the id
    by which training may replace a word with an unknown one, None where it must not.
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
            ValueError: a text has no word, or is no valid text.
        """
        for text in texts:
            _check_text(text)
        ids = np.full((len(texts), self.max_words), PAD, dtype=np.int64)
        mask = np.zeros(ids.shape, dtype=bool)
        for row, encoding in enumerate(self._tokenizer.encode_batch(texts)):
            if not texts[row].strip() or all(encoding.special_tokens_mask):
                raise ValueError(_no_words(texts[row]))
            words = encoding.ids[: self.max_words]
            ids[row, : len(words)], mask[row, : len(words)] = words, True
        return ids, mask

    def pieces(self, text: str) -> list[str]:
        """The text tokens, words or parts of words, that a text becomes; as many as its mask has True."""
        tokens: list[str] = self._tokenizer.encode(text).tokens[: self.max_words]
        return tokens

    def reading(self, text: str) -> Reading:
        """Which words of a text reach the policy, and which of those it knows.

        The limit is `max_words` text tokens, special ones included. (Training may use fewer, where all its texts are
        shorter; that drops padding alone.) A word of which only a part reaches the policy is dropped.

        Raises:
            ValueError: the text has no word, or is no valid text.
        """
        _check_text(text)
        encoding = self._tokenizer.encode(text)
        tokens = list(zip(encoding.ids, encoding.offsets, encoding.special_tokens_mask, strict=True))[: self.max_words]
        real = [(number, span) for number, span, special in tokens if not special]
        if not text.strip() or not real:
            raise ValueError(_no_words(text))
        is_cut = len(encoding.ids) > self.max_words or bool(encoding.overflowing)
        end = max(stop for _, (_, stop) in real)
        spans = [match.span() for match in WORD.finditer(text)]
        kept = [span for span in spans if span[1] <= end or not is_cut]
        holes = [span for number, span in real if number == self._unknown_id]
        unknown: dict[str, None] = {}  # a set that keeps the order
        hole = 0
        for start, stop in kept:
            while hole < len(holes) and holes[hole][1] <= start:
                hole += 1
            if hole < len(holes) and holes[hole][0] < stop:
                unknown[text[start:stop]] = None
        return Reading(
            kept=tuple(text[a:b] for a, b in kept),
            dropped=tuple(text[a:b] for a, b in spans[len(kept) :]),
            unknown=tuple(unknown),
        )

    @cached_property
    def _unknown_id(self) -> int | None:
        """What unknown words, or unknown parts of words, become; None if there are none."""
        model: dict[str, Any] = json.loads(self._tokenizer.to_str())["model"]
        token, number = model.get("unk_token"), model.get("unk_id")
        return self._tokenizer.token_to_id(token) if token is not None else number


class WordTokenizer(TextTokenizer):
    """Words to numbers, in lower case; 0 is padding, 1 any unknown word."""

    FILES = ("tokenizer.json",)
    unknown = UNKNOWN

    @classmethod
    def load(cls, folder: Path, max_words: int) -> Self:
        loaded = super().load(folder, max_words)
        numbers = set(loaded._tokenizer.get_vocab().values())
        if numbers != set(range(len(numbers))):
            raise ValueError(f"{folder / cls.FILES[0]}: its words are not numbered from 0 on; restore the file")
        return loaded

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


def _check_text(text: str) -> None:
    """Refuse half characters, which a terminal may give and no tokenizer takes."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(
            f"instruction {_shortened(text)!r} holds half a character, which is no valid text; type it again"
        )


def _no_words(text: str) -> str:
    return f"instruction {_shortened(text)!r} has no words"


def _words(count: int, kind: str = "") -> str:
    return f"{count} {kind}{'word' if count == 1 else 'words'}"


def _listed(words: Sequence[str]) -> str:
    """The first few in quotes, and how many more there are."""
    named = [repr(_shortened(word)) for word in words[:NAMED]]
    if len(words) > NAMED:
        return f"{', '.join(named)} and {_words(len(words) - NAMED, 'more ')}"
    return f"{', '.join(named[:-1])} and {named[-1]}" if len(named) > 1 else named[0]


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _read_tokenizer(source: str) -> Tokenizer:
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(source, trust_remote_code=False, use_fast=True)
    fast = getattr(found, "backend_tokenizer", None)
    if not isinstance(fast, Tokenizer):
        raise ValueError(f"{type(found).__name__} is not a fast tokenizer, and only those can be saved on their own")
    if set(fast.get_vocab()) <= set(found.all_special_tokens):  # what the library makes up when it finds no file
        raise ValueError("no vocabulary")
    return fast
