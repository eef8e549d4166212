"""Instructions that a policy cannot read in full: said, or refused, and never passed over."""

from __future__ import annotations

from collections.abc import Iterable

from vla_policy.tokenizer import TextTokenizer


def check_instruction(tokenizer: TextTokenizer, text: str) -> str:
    """What a policy does not know of a user's words, in one sentence; "" if it knows them all.

    Raises:
        ValueError: it knows none of them, or the end is cut off: what it did then would not be what it was told.
    """
    reading = tokenizer.reading(text)
    if reading.dropped:
        raise ValueError(f"instruction {_short(text)!r} is too long: {reading.notice}; use fewer words")
    if len(set(reading.kept)) == len(reading.unknown):
        raise ValueError(
            f"instruction {_short(text)!r} means nothing to the policy: it was trained on none of its words"
        )
    return reading.notice


def unread_words(tokenizer: TextTokenizer, texts: Iterable[str]) -> dict[str, list[str]]:
    """Of instructions that a task gave: the words that the policy does not know, and those that were cut off."""
    unknown: dict[str, None] = {}
    dropped: dict[str, None] = {}
    for text in dict.fromkeys(texts):
        reading = tokenizer.reading(text)
        unknown |= dict.fromkeys(reading.unknown)
        dropped |= dict.fromkeys(reading.dropped)
    found = (("unknown", unknown), ("dropped", dropped))
    read = {kind: sorted(word for word in words if any(map(str.isalnum, word))) for kind, words in found}
    return {kind: words for kind, words in read.items() if words}


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
