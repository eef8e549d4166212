"""Words that say when to act: enough phrasings of every kind, held-out ones apart, and reading a user's own words."""

from __future__ import annotations

import re

import pytest

from envs.tabletop.events import EVENTS, read_event, read_kind
from envs.tabletop.instructions import Referent
from envs.tabletop.objects import COLOURS, SHAPE_WORDS
from envs.tabletop.tasks import reach, track
from envs.tabletop.tasks.track_motion import MOTIONS, NOUNS


def test_there_are_enough_phrasings_and_held_out_ones_are_new() -> None:
    said = [text for templates in EVENTS.values() for text in (*templates.train, *templates.held_out)]
    assert len(set(said)) == len(said)
    for templates in EVENTS.values():
        assert len(templates.train) >= 8
        assert len(templates.held_out) >= 4
        assert all(re.fullmatch(r"[a-z ,]*\{it\}[a-z ,]*", text) for text in (*templates.train, *templates.held_out))


@pytest.mark.parametrize("kind", sorted(EVENTS))
def test_events_are_read_back_from_every_phrasing(kind: str) -> None:
    for template in (*EVENTS[kind].train, *EVENTS[kind].held_out):
        for colour in COLOURS:
            for shape, words in SHAPE_WORDS.items():
                for word in words:
                    text = template.format(it=f"{colour} {word}")
                    assert read_event(text) == Referent(colour=colour, shape=shape, event=kind)
                    assert read_event(f"  {text.upper()}! ") == Referent(colour=colour, shape=shape, event=kind)


@pytest.mark.parametrize(
    ("text", "colour", "kind"),
    [
        ("go to the green ball once the light goes green", "green", "lamp"),
        ("When the lamp switches from red to green: touch the blue sphere.", "blue", "lamp"),
        ("at the green signal go to the red ball", "red", "lamp"),
        ("touch the blue ball after it stops moving", "blue", "stop"),
        ("wait while the purple ball moves, then touch it", "purple", "stop"),
        ("follow the red ball until it comes to rest, then come home", "red", "while"),
        ("so long as the orange ball moves, stay with it", "orange", "while"),
        ("keep following the blue ball until it stops", "blue", "while"),
        ("when the red light turns green go to the blue ball", "blue", "lamp"),
    ],
)
def test_a_users_own_words(text: str, colour: str, kind: str) -> None:
    assert read_event(text) == Referent(colour=colour, shape="ball", event=kind)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("follow the red ball", r"names no known event; say one of: while it moves, .*"),
        ("follow the light blue ball", r"names no known event; say one of: .*"),
        ("follow the red ball until the lamp turns green", r"names no known event.*"),
        ("follow the red ball whille it moves", r"names no known event \(did you mean while\?\); say one of: .*"),
        ("when the lamp turns green, go to the ball", r"must name one colour, names none; choose from .*"),
        ("when the lamp turns green, go to the blue one", r"must name one shape, names none; choose from .*"),
        ("touch the red or blue ball when it stops", r"must name one colour, names 2 \(blue, red\); choose from .*"),
    ],
)
def test_events_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^instruction {text!r} {message}$") as caught:
        read_event(text)
    assert "\n" not in str(caught.value)


def test_words_of_the_other_tasks_name_no_event() -> None:
    its = ["red ball", *(way.format(noun=noun) for ways in MOTIONS.values() for way in ways for noun in NOUNS)]
    for templates in (reach.TEMPLATES, track.TEMPLATES):
        for template in (*templates.train, *templates.held_out):
            assert all(read_kind(template.format(it=it)) is None for it in its)
