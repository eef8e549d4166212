"""Instructions: templates in trained and held-out phrasings, and reading a user's own words back.

A referent is what the words single out: a colour and a shape, or a way of moving, and what to wait for if anything.
Templates hold one `{it}`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from envs.tabletop.objects import COLOURS, SHAPE_WORDS

Phrasing = Literal["train", "held_out"]
PHRASINGS: tuple[Phrasing, ...] = ("train", "held_out")
MAX_INSTRUCTION = 120  # characters
INSTRUCTION_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ,.-'!?"

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4`\uff07", "'"))
_CONTRACTION = re.compile(r"n't\b|(?<=\b(?:do|is))nt\b|(?<=\b(?:does|must))nt\b|(?<=\bshould)nt\b|(?<=\bcan)not\b")
_STOP = r"(?:stop(?:s|ping)?|paus(?:e|es|ing)|rest(?:s|ing)?|halt(?:s|ing)?|breaks?|stands? still|standing still)"
# Ways of moving, and emphasis: these deny nothing of what is asked for.
UNSTOPPING = re.compile(
    r"\b(?:never(?: ever| once)? (?:stops|stopping|pauses|rests|halts|stands still)"
    rf"|(?:without|with no)(?: a| any| ever| once| single| taking| making)* {_STOP}"
    rf"|(?:does|is|are) not(?: ever| once)? {_STOP}|not stopping|non ?stop)\b"
)
_EMPHASIS = re.compile(r"\b(?:nothing else|no (?:other|matter|longer))\b")
_GO = r"(?:stay|keep|go|move|get|be|run|steer|turn|back)(?: the (?:gripper|hand|arm|robot))?"
_DENIAL = re.compile(
    r"\b(?:not|never|no|none|nothing|nowhere|neither|nor|unless|avoid(?:s|ing)?|except(?:ing)?|exclud(?:e|es|ing)"
    r"|ignor(?:e|es|ing)|disregard(?:s|ing)?|instead of|rather than|other than|apart from|aside from|leave\b.*\balone"
    r"|(?:any[a-z]*|every[a-z]*|all|each|whatever|whichever)\b.*\bbut"
    rf"|{_GO} (?:far |well )?(?:away from|far from|clear of))\b"
    r"|^(?:please )?(?:stop|cease|quit) [a-z]+ing\b"
)


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


def words_of(text: str) -> str:
    """The words of a user's text in small letters, with one space between them; short forms of "not" are written out.

    Raises:
        ValueError: it is no text, too long to be an instruction, or says what not to do, which no task can be told.
    """
    if not isinstance(text, str):
        raise ValueError(f"instruction {text!r} must be a text, not {type(text).__name__}")
    if len(text) > MAX_INSTRUCTION:
        raise ValueError(
            f"instruction {text[:40]!r}... has {len(text)} characters; say it in at most {MAX_INSTRUCTION}"
        )
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"instruction {text!r} holds half a character, which is no valid text; type it again")
    plain = _CONTRACTION.sub(" not", text.lower().translate(_APOSTROPHES))
    words = " ".join(re.findall(r"[a-z]+", plain))
    denial = _DENIAL.search(_EMPHASIS.sub(" ", UNSTOPPING.sub(" ", words)))
    if denial:
        raise ValueError(
            f"instruction {text!r} says what not to do ({denial[0]!r}); say what to do, as in 'follow the red ball'"
        )
    return words


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
