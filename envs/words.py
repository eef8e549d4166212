"""A user's own words: what no task can be told is refused before any task reads them."""

from __future__ import annotations

import re

from envs.text import MAX_INSTRUCTION

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
