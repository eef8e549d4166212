"""Instructions: templates in trained and held-out phrasings, and reading a user's own words back.

A referent is what the words single out: a colour and a shape, or a way of moving, and what to wait for if anything.
Templates hold one `{it}`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from envs.tabletop.objects import COLOURS, SHAPE_WORDS
from envs.words import words_of

Phrasing = Literal["train", "held_out"]
PHRASINGS: tuple[Phrasing, ...] = ("train", "held_out")


@dataclass(frozen=True, kw_only=True)
class Referent:
    """What an instruction means: colour and shape of a thing, or how it moves (a key of a task's MOTIONS).

    `event` is the kind of event that says when to act (a key of `envs.tabletop.events.EVENTS`), None for at once.
    """

    colour: str | None = None
    shape: str | None = None
    motion: str | None = None
    event: str | None = None

    @property
    def pair(self) -> tuple[str, str]:
        """Colour and shape.

        Raises:
            ValueError: it does not name both.
        """
        if self.colour not in COLOURS or self.shape not in SHAPE_WORDS:
            raise ValueError(
                f"{self} must name one colour of {', '.join(COLOURS)} and one shape of {', '.join(SHAPE_WORDS)}"
            )
        return self.colour, self.shape


@dataclass(frozen=True, kw_only=True)
class Templates:
    """A task's phrasings; `held_out` ones never occur in training data."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    def pick(self, phrasing: Phrasing, rng: np.random.Generator) -> str:
        if phrasing not in PHRASINGS:
            raise ValueError(f"phrasing {phrasing!r} must be one of {', '.join(PHRASINGS)}")
        choices = self.train if phrasing == "train" else self.held_out
        return choices[rng.integers(len(choices))]


def name_object(colour: str, shape: str, rng: np.random.Generator) -> str:
    """A noun phrase for a coloured shape, with one of the shape's words."""
    words = SHAPE_WORDS[shape]
    return f"{colour} {words[rng.integers(len(words))]}"


def read_object(text: str) -> Referent:
    """The colour and shape that a free text names.

    Raises:
        ValueError: the text names no or several colours or shapes, or cannot be an instruction (see `words_of`).
    """
    tokens = words_of(text).split()
    shape_of = {word: shape for shape, words in SHAPE_WORDS.items() for word in words}
    colours = sorted({t for t in tokens if t in COLOURS})
    shapes = sorted({shape_of[t] for t in tokens if t in shape_of})
    for kind, found, known in (("colour", colours, list(COLOURS)), ("shape", shapes, list(shape_of))):
        if len(found) != 1:
            hint = near_miss(tokens, known)
            got = f"{len(found)} ({', '.join(found)})" if found else "none"
            raise ValueError(
                f"instruction {text!r} must name one {kind}, names {got}{hint}; choose from {', '.join(known)}"
            )
    return Referent(colour=colours[0], shape=shapes[0])


def near_miss(tokens: list[str], known: Sequence[str]) -> str:
    """A hint at the known words that a text may have meant, or an empty text."""
    near = {word for token in tokens for word in difflib.get_close_matches(token, known, 1, 0.75)} - set(tokens)
    return f" (did you mean {', '.join(sorted(near))}?)" if near else ""
