"""Words that say when to act: kinds of events with their phrasings, and reading a user's own words back.

Kinds: "while" (follow the object while it moves, then come back), "lamp" (go to the object when the lamp turns green)
and "stop" (touch the object when it has come to rest).
"""

from __future__ import annotations

import re

from envs.tabletop.instructions import Referent, Templates, near_miss, read_object
from envs.tabletop.objects import COLOURS
from envs.words import words_of

EVENTS: dict[str, Templates] = {
    "while": Templates(
        train=(
            "follow the {it} while it moves, then come back",
            "track the {it} while it is moving, then go back",
            "while the {it} moves, follow it, then come back",
            "stay over the {it} as long as it moves, then come back",
            "keep the gripper over the {it} while it moves, then go back",
            "as long as the {it} moves, stay over it, then go back",
            "chase the {it} while it is moving, then come back",
            "follow the {it} until it stops, then come back",
            "track the {it} until it stands still, then go back",
            "please follow the {it} while it moves, then go back",
        ),
        held_out=(
            "please track the {it} as long as it moves, then come back",
            "while the {it} is moving, stay over it, then go back",
            "keep the hand over the {it} while it moves, then come back",
            "chase the {it} until it stops, then go back",
        ),
    ),
    "lamp": Templates(
        train=(
            "when the lamp turns green, go to the {it}",
            "go to the {it} when the lamp turns green",
            "wait for the green lamp, then go to the {it}",
            "wait until the lamp turns green, then go to the {it}",
            "once the lamp is green, follow the {it}",
            "follow the {it} as soon as the lamp turns green",
            "stay over the {it} once the lamp is green",
            "when the lamp is green, hover over the {it}",
            "as soon as the lamp is green, track the {it}",
            "please go to the {it} once the lamp turns green",
        ),
        held_out=(
            "wait for the green lamp, then follow the {it}",
            "as soon as the lamp turns green, go to the {it}",
            "hover over the {it} when the lamp is green",
            "wait until the lamp is green, then stay over the {it}",
        ),
    ),
    "stop": Templates(
        train=(
            "wait until the {it} stops, then touch it",
            "wait until the {it} stands still, then touch it",
            "touch the {it} when it stops",
            "when the {it} stops, touch it",
            "once the {it} stands still, reach for it",
            "wait for the {it} to stop, then touch it",
            "reach for the {it} once it has stopped",
            "as soon as the {it} stops, reach for it",
            "touch the {it} as soon as it stands still",
            "please touch the {it} once it has stopped",
        ),
        held_out=(
            "once the {it} has stopped, touch it",
            "wait until the {it} has stopped, then reach for it",
            "touch the {it} as soon as it has stopped",
            "please wait for the {it} to stop, then reach for it",
        ),
    ),
}

_LAMP = rf"(?:lamp|signal|light(?! (?:{'|'.join(COLOURS)})\b))"  # no light blue ball
_TURNING = r"(?:turns?|turned|turning|goes|gone|is|becomes|gets|switches|changes|changed|has|shows|shines|from|red|to)"
# Words about the lamp: its own colour says nothing about the object that is meant.
_GREEN_LAMP = re.compile(rf"\bgreen {_LAMP}\b|\b(?:red )?{_LAMP}(?: {_TURNING})* green\b|\b(?:red )?{_LAMP}\b")
_FOLLOWING = (
    r"\b(?:follow(?:ing)?|track(?:ing)?|chas(?:e|ing)|pursu(?:e|ing)|hover(?:ing)?"
    r"|stay over|stay with|stay above|keep\b.* over|move with|go with)\b"
)
_RESTING = r"\b(?:stop|stops|stopped|stands? still|halts?|halted|at rest|to rest)\b"
# The first kind whose pattern is found in the words is meant.
_PATTERNS: dict[str, str] = {
    "lamp": rf"^(?!.*{_FOLLOWING}.* until\b.*\b{_LAMP}\b).*\b{_LAMP}\b",
    "while": rf"(?<!wait )\bwhile\b|\b(?:as|so) long as\b|{_FOLLOWING}.* until\b.*{_RESTING}",
    "stop": rf"\b(?:until|when|once|(?<!go )after|as soon as|wait for)\b.*{_RESTING}|\bwait while\b",
}
_EXAMPLES = ("while it moves", "when the lamp turns green", "when it stops")


def read_kind(text: str) -> str | None:
    """The kind of event that a free text names, a key of EVENTS, or None.

    Raises:
        ValueError: the text cannot be an instruction (see `words_of`).
    """
    words = words_of(text)
    return next((kind for kind, pattern in _PATTERNS.items() if re.search(pattern, words)), None)


def read_event(text: str) -> Referent:
    """The colour and shape that a free text names, and the event it says to wait for.

    Raises:
        ValueError: the text names no event, or no or several colours or shapes besides the lamp's, or cannot be an
            instruction (see `words_of`).
    """
    kind = read_kind(text)
    if kind is None:
        hint = near_miss(words_of(text).split(), ("while", "lamp", "until", "when", "stops"))
        raise ValueError(f"instruction {text!r} names no known event{hint}; say one of: {', '.join(_EXAMPLES)}")
    rest = _GREEN_LAMP.sub(" ", words_of(text)) if kind == "lamp" else words_of(text)
    try:
        found = read_object(rest)
    except ValueError as error:
        # In the user's own words, not in those that are left of them.
        raise ValueError(str(error).replace(repr(rest), repr(text), 1)) from None
    return Referent(colour=found.colour, shape=found.shape, event=kind)
