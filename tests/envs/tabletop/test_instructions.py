"""Words: enough phrasings, held-out ones apart from trained ones, and reading a user's own words."""

from __future__ import annotations

import re

import numpy as np
import pytest

from envs.tabletop.instructions import PHRASINGS, Referent, Templates, name_object, near_miss, read_object
from envs.tabletop.objects import COLOURS, SHAPE_WORDS, SHAPES
from envs.tabletop.tasks import reach, track, track_motion
from envs.tabletop.tasks.track_motion import GROUPS, MOTIONS, NOUNS, STEMS, read_motion

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


def test_a_referent_without_colour_and_shape_is_refused_where_both_are_needed() -> None:
    assert Referent(colour="red", shape="ball").pair == ("red", "ball")
    for bad in (Referent(), Referent(colour="red"), Referent(colour="pink", shape="ball"), Referent(motion="fastest")):
        with pytest.raises(ValueError, match=r"must name one colour of red, .* and one shape of ball, "):
            _ = bad.pair


def test_near_miss() -> None:
    assert near_miss(["grene", "bal"], ["green", "ball", "red"]) == " (did you mean ball, green?)"
    assert near_miss(["green"], ["green", "ball"]) == ""
    assert near_miss(["zzz"], ["green", "ball"]) == ""
