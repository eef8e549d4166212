"""What people can do to a world on the live page, without a browser: words, hands, tasks, actors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from eval.play.policies import EXPERT, Policies
from eval.play.stage import Stage

PICTURE = 64


@pytest.fixture(scope="module")
def policies() -> Policies:
    return Policies(["default"])


@pytest.fixture
def stage(policies: Policies) -> Iterator[Stage]:
    stage = Stage(policies, PICTURE)
    stage.wants_shot = False
    yield stage
    stage.close()


def steps(stage: Stage, count: int) -> None:
    for _ in range(count):
        stage.step()


def away(stage: Stage) -> float:
    distance = stage.standing.distance
    assert distance is not None
    return distance


def test_other_words_in_mid_episode_are_obeyed_and_move_the_target(stage: Stage) -> None:
    stage.choose("track", "default")
    steps(stage, 24)
    first, tolerance = stage.meant, stage.spec.tolerance
    assert tolerance is not None
    assert away(stage) < tolerance
    other = next(text for text in stage.examples[1:] if stage.spec.read(text)["referent"].colour)
    assert stage.say(other) == ""
    assert stage.meant != first
    assert stage.world.step == 24  # the episode went on
    assert away(stage) > tolerance
    steps(stage, 24)
    assert away(stage) < tolerance


def test_a_policy_follows_what_is_dragged(stage: Stage) -> None:
    stage.choose("track", "default")
    steps(stage, 10)
    thing = stage.meant
    assert thing is not None
    place = stage.places()[thing] * (-0.8, -0.8, 1)
    stage.hold(thing, place)
    np.testing.assert_allclose(stage.places()[thing], place)
    before = away(stage)
    steps(stage, 20)
    assert np.linalg.norm(stage.places()[thing] - place) < 0.02  # it is held, but for one step of its own motion
    assert away(stage) < min(before, 0.04)


def test_a_verdict_says_what_people_changed_on_the_way(stage: Stage) -> None:
    stage.choose("track", EXPERT)
    steps(stage, 1)
    stage.say(stage.examples[1])
    stage.hold(0, stage.places()[0])
    stage.let_go(0)
    steps(stage, stage.spec.horizon)
    assert stage.standing.verdict == "success (other words on the way, moved by hand)"
    assert stage.shot.step == stage.spec.horizon


def test_words_for_what_is_not_there_begin_a_scene_that_has_it(stage: Stage) -> None:
    stage.choose("track", EXPERT)
    absent = next(f"follow the {colour} cube" for colour in ("red", "blue") if f"{colour} cube" not in _names(stage))
    steps(stage, 3)
    assert "new scene" in stage.say(absent)
    assert stage.world.step == 0
    assert stage.standing.target == absent.removeprefix("follow the ")
    stage.restart(stage.seed + 1)  # the words hold on
    assert stage.world.instruction == absent
    assert stage.standing.target == absent.removeprefix("follow the ")


def test_words_for_another_task_begin_that_one(stage: Stage) -> None:
    stage.choose("track", "default")
    assert "track_motion" in stage.say("track the one moving clockwise")
    assert stage.spec.name == "track_motion"
    assert "clockwise" in stage.standing.target


def test_what_nobody_can_judge_is_tried_and_said_so(stage: Stage) -> None:
    stage.choose("track", "default")
    told = stage.say("follow the flumph ball")
    assert "nobody can tell" in told
    assert "'flumph'" in told
    assert stage.meant is None
    assert stage.standing.target == ""
    assert stage.standing.distance is None


@pytest.mark.parametrize(("who", "text"), [("default", "flumph"), ("default", " "), (EXPERT, "follow it")])
def test_words_that_cannot_be_read_leave_all_as_it_was(stage: Stage, who: str, text: str) -> None:
    stage.choose("track", who)
    before = stage.world.instruction
    with pytest.raises(ValueError, match=r"instruction|nothing was said"):
        stage.say(text)
    assert stage.world.instruction == before


def test_the_same_seed_begins_the_same_scene(stage: Stage) -> None:
    stage.choose("track", EXPERT)
    steps(stage, 5)
    hand = stage.world.info["privileged"]["hand"]
    stage.restart(3)
    stage.restart(0)
    steps(stage, 5)
    np.testing.assert_array_equal(stage.world.info["privileged"]["hand"], hand)


def test_a_free_body_is_put_where_it_is_dragged_and_lies_there(stage: Stage) -> None:
    stage.choose("push", EXPERT)
    thing = max(stage.places())
    place = np.array([0.19, 0.21, stage.places()[thing][2]])
    stage.hold(thing, place)
    steps(stage, 3)
    stage.let_go(thing)
    steps(stage, 3)
    assert np.linalg.norm(stage.places()[thing] - place) < 0.01


def test_the_expert_goes_for_the_other_cube_when_told_so(stage: Stage) -> None:
    stage.choose("catch", EXPERT)
    motion = stage.spec.read(stage.world.instruction).get("motion")
    assert motion == "clockwise"
    first = stage.meant
    steps(stage, 10)
    assert stage.say("grab the one going counterclockwise") == ""
    assert stage.world.step == 10
    assert stage.meant != first
    before = away(stage)
    steps(stage, 12)
    assert away(stage) < before / 2


def test_a_choice_that_cannot_be_leaves_all_as_it_was(stage: Stage) -> None:
    stage.choose("track", "default")
    world = stage.world
    with pytest.raises(ValueError, match="trak"):
        stage.choose("trak", "default")
    with pytest.raises(ValueError, match="metaworld"):
        stage.choose("metaworld/reach", "default")  # another robot's
    with pytest.raises(ValueError, match="nobody"):
        stage.choose("track", "nobody")
    assert stage.world is world
    steps(stage, 1)


def test_the_moment_is_drawn_with_what_was_decided(stage: Stage) -> None:
    stage.choose("track", "default")
    stage.wants_shot = True
    steps(stage, 1)
    assert stage.shot.predicted_box is not None
    assert stage.shot.location is not None
    assert stage.shot.action is not None
    assert [word.split()[0] for word in stage.heats] == stage.world.instruction.split()
    assert stage.shot.draw(scale=1).shape[1] == PICTURE


def test_policies_are_found_by_what_they_were_trained_on(policies: Policies) -> None:
    assert policies.for_task("track", "default") == "default"
    assert policies.for_task("track", EXPERT) == EXPERT
    assert policies.for_task("track_event", "default") == "track_event"
    assert policies.for_task("catch", "default") == EXPERT
    with pytest.raises(ValueError, match="unknown"):
        policies.load("/etc")  # a page cannot name a folder


def _names(stage: Stage) -> tuple[str, ...]:
    names: tuple[str, ...] = stage.world.info["privileged"]["objects"]
    return names
