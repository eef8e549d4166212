"""Words: enough phrasings, held-out ones apart from trained ones, and reading a user's own words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from envs.tabletop.events import read_event, read_kind
from envs.tabletop.instructions import (
    PHRASINGS,
    Referent,
    Templates,
    name_object,
    near_miss,
    read_object,
)
from envs.tabletop.objects import COLOURS, SHAPE_WORDS, SHAPES
from envs.tabletop.tasks import reach, track, track_motion
from envs.tabletop.tasks.track_motion import GROUPS, MOTIONS, NOUNS, STEMS, read_motion
from envs.text import MAX_INSTRUCTION

TEMPLATES = {"reach": reach.TEMPLATES, "track": track.TEMPLATES, "track_motion": track_motion.TEMPLATES}


@pytest.mark.parametrize("task", sorted(TEMPLATES))
def test_there_are_enough_phrasings_and_held_out_ones_are_new(task: str) -> None:
    templates = TEMPLATES[task]
    assert len(set(templates.train)) >= 12
    assert len(set(templates.held_out)) >= 6
    assert not set(templates.train) & set(templates.held_out)
    assert len(set(templates.train)) == len(templates.train)
    assert len(set(templates.held_out)) == len(templates.held_out)
    for template in (*templates.train, *templates.held_out):
        assert template.count("{it}") == 1
        assert template.format(it="red ball") == template.replace("{it}", "red ball")
        assert re.fullmatch(r"[a-z ]+\{it\}[a-z ]*", template)


def test_every_object_has_at_least_two_names() -> None:
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        names = {name_object("red", shape, rng) for _ in range(40)}
        assert names == {f"red {word}" for word in SHAPE_WORDS[shape]}
        assert len(names) >= 2
    words = [word for group in SHAPE_WORDS.values() for word in group]
    assert len(set(words)) == len(words)
    assert not set(words) & set(COLOURS)


def test_every_motion_has_at_least_three_ways_to_say_it() -> None:
    assert {motion for group in GROUPS for motion in group[:2]} == set(MOTIONS)
    said = [way for ways in MOTIONS.values() for way in ways]
    assert min(map(len, MOTIONS.values())) >= 3
    assert len(set(said)) == len(said)
    assert all(way.count("{noun}") == 1 for way in said)
    # The nouns say nothing: neither colour nor shape tells identical objects apart.
    assert not set(NOUNS) & {word for words in SHAPE_WORDS.values() for word in words}


def test_pick_draws_all_phrasings_of_its_kind_and_no_other() -> None:
    templates = Templates(train=("a {it}", "b {it}"), held_out=("c {it}",))
    rng = np.random.default_rng(0)
    assert {templates.pick("train", rng) for _ in range(30)} == {"a {it}", "b {it}"}
    assert {templates.pick("held_out", rng) for _ in range(5)} == {"c {it}"}
    with pytest.raises(ValueError, match=f"'other' must be one of {', '.join(PHRASINGS)}"):
        templates.pick("other", rng)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["reach", "track"])
def test_objects_are_read_back_from_every_phrasing(task: str) -> None:
    for template in (*TEMPLATES[task].train, *TEMPLATES[task].held_out):
        for colour in COLOURS:
            for shape, words in SHAPE_WORDS.items():
                for word in words:
                    text = template.format(it=f"{colour} {word}")
                    assert read_object(text) == Referent(colour=colour, shape=shape)
                    assert read_object(f"  {text.upper()}! ") == Referent(colour=colour, shape=shape)


def test_motions_are_read_back_from_every_phrasing() -> None:
    nouns = (*NOUNS, *(word for words in SHAPE_WORDS.values() for word in words))
    for template in (*TEMPLATES["track_motion"].train, *TEMPLATES["track_motion"].held_out):
        for motion, ways in MOTIONS.items():
            for way in ways:
                for noun in nouns:
                    assert read_motion(template.format(it=way.format(noun=noun))).motion == motion


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("track the ball", r"must name one colour, names none; choose from red, green, .*"),
        ("track the red one", r"must name one shape, names none; choose from ball, sphere, .*"),
        ("track the purpel ball", r"must name one colour, names none \(did you mean purple\?\); choose from .*"),
        ("track the red trangle", r"must name one shape, names none \(did you mean triangle\?\); choose from .*"),
        ("the red and the blue ball", r"must name one colour, names 2 \(blue, red\); choose from .*"),
        ("the red ball on the cube", r"must name one shape, names 2 \(ball, cube\); choose from .*"),
        ("", r"must name one colour, names none; choose from .*"),
    ],
)
def test_objects_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^instruction {text!r} {message}$") as caught:
        read_object(text)
    assert "\n" not in str(caught.value)


def test_two_words_for_one_shape_are_one_shape() -> None:
    assert read_object("the red cube, that block") == Referent(colour="red", shape="cube")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("follow the red ball", r"names no known motion; say one of: counterclockwise, .*"),
        ("follow the clokwise ball", r"names no known motion \(did you mean clockwise\?\); say one of: .*"),
        ("follow the fastst one", r"names no known motion \(did you mean fastest\?\); say one of: .*"),
    ],
)
def test_motions_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^instruction {text!r} {message}$"):
        read_motion(text)


def test_every_motion_can_be_read_in_a_users_words() -> None:
    assert set(STEMS) == set(MOTIONS)
    assert read_motion("track whatever moves sideways").motion == "left_right"
    assert read_motion("track the red block moving clockwise") == Referent(
        colour="red", shape="cube", motion="clockwise"
    )
    assert read_motion("the fastest sphere") == Referent(shape="ball", motion="fastest")
    assert read_motion("the one that never stops").motion == "steady"


@pytest.mark.parametrize("start", ["anti", "counter"])
@pytest.mark.parametrize("joint", ["", "-", " "])
def test_against_the_clock_is_read_in_any_spelling(start: str, joint: str) -> None:
    assert read_motion(f"Follow the one going {start}{joint}clockwise.").motion == "counterclockwise"
    assert read_motion(f"the {start.capitalize()}{joint}clockwise ball, please").motion == "counterclockwise"


DENIALS = (
    ("do not follow the blue ball", "not"),
    ("don't follow the blue ball", "not"),
    ("Don\u2019t follow the blue ball!", "not"),
    ("dont follow the blue ball", "not"),
    ("you cannot touch the blue ball", "not"),
    ("you mustn't touch the blue ball", "not"),
    ("never touch the blue ball", "never"),
    ("follow anything but the blue ball", "anything but"),
    ("touch every object but the blue ball", "every object but"),
    ("follow the others, not the blue ball", "not"),
    ("avoid the blue ball", "avoid"),
    ("follow all except the blue ball", "except"),
    ("follow all things excluding the blue ball", "excluding"),
    ("ignore the blue ball", "ignore"),
    ("go somewhere other than the blue ball", "other than"),
    ("instead of the blue ball take another", "instead of"),
    ("stay away from the blue ball", "stay away from"),
    ("keep the gripper well away from the blue ball", "keep the gripper well away from"),
    ("keep clear of the blue ball", "keep clear of"),
    ("leave the blue ball alone", "leave the blue ball alone"),
    ("stop following the blue ball", "stop following"),
    ("please stop tracking the blue ball", "please stop tracking"),
    ("do not stop at the blue ball", "not"),
    ("touch neither the blue ball nor the lamp", "neither"),
    ("touch nothing but the blue ball", "nothing"),
    ("no blue ball", "no"),
)


@pytest.mark.parametrize(("text", "found"), DENIALS)
def test_what_not_to_do_is_refused_in_one_line(text: str, found: str) -> None:
    for ending in ("", " that never stops", " when the lamp turns green"):
        for read in (read_object, read_motion, read_event, read_kind):
            with pytest.raises(ValueError, match=rf"^instruction .* what not to do \('{found}'\); say what") as caught:
                read(text + ending)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "way",
    [
        "that never stops", "that never ever stops", "without a stop", "moving without any stops", "without stopping",
        "that does not stop", "that doesn't stop", "that does not ever rest", "that isn\u2019t stopping",
        "that moves without taking a break", "that never stands still", "that moves nonstop", "moving non-stop",
        "with no stops",
    ],
)  # fmt: skip
def test_what_never_stops_is_a_motion(way: str) -> None:
    assert read_motion(f"follow the red ball {way}") == Referent(colour="red", shape="ball", motion="steady")
    assert read_object(f"follow the red ball {way}") == Referent(colour="red", shape="ball")


@pytest.mark.parametrize(
    "text",
    [
        "follow the red ball and nothing else",
        "no matter what, follow the red ball",
        "follow the red ball but slowly",
        "follow the red ball without touching it",
        "follow the red ball that is moving towards and away",
        "all right, follow the red ball",
        "follow the cool big knotted red ball over there",
        "follow the red ball, bitte",
    ],
)
def test_words_that_a_scene_knows_nothing_of_are_fine(text: str) -> None:
    assert read_object(text) == Referent(colour="red", shape="ball")


def test_keeping_off_touching_is_no_way_of_moving() -> None:
    with pytest.raises(ValueError, match="names no known motion"):
        read_motion("follow the red ball without touching it")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"instruction None must be a text, not NoneType"),
        (b"follow the red ball", r"instruction b'follow the red ball' must be a text, not bytes"),
        (7, r"instruction 7 must be a text, not int"),
        ("follow the red ball \ud83d", r"instruction 'follow the red ball \\ud83d' holds half a character, .*"),
        ("follow the red ball" + " please" * 15, r"instruction 'follow the red .*'\.\.\. has 124 characters; .* 120"),
        ("", r"instruction '' .*"),
        ("  \n ", r"instruction '  \\n ' .*"),
        ("?!", r"instruction '\?!' .*"),
    ],
)
@pytest.mark.parametrize("read", [read_object, read_motion, read_event])
def test_what_is_no_instruction_is_refused_in_one_line(text: Any, message: str, read: Callable[[str], object]) -> None:
    with pytest.raises(ValueError, match=f"^{message}$") as caught:
        read(text)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def test_the_longest_instruction_is_read_whole() -> None:
    text = "please " * 20 + "red ball"
    assert read_object(text[-MAX_INSTRUCTION:]) == Referent(colour="red", shape="ball")


def test_a_referent_without_colour_and_shape_is_refused_where_both_are_needed() -> None:
    assert Referent(colour="red", shape="ball").pair == ("red", "ball")
    for bad in (Referent(), Referent(colour="red"), Referent(colour="pink", shape="ball"), Referent(motion="fastest")):
        with pytest.raises(ValueError, match=r"must name one colour of red, .* and one shape of ball, "):
            _ = bad.pair


def test_near_miss() -> None:
    assert near_miss(["grene", "bal"], ["green", "ball", "red"]) == " (did you mean ball, green?)"
    assert near_miss(["green"], ["green", "ball"]) == ""
    assert near_miss(["zzz"], ["green", "ball"]) == ""
