"""Which of our tasks a user's words ask for."""

from __future__ import annotations

import pytest

from envs.guessing import guess_task


def test_the_task_is_guessed_from_the_words() -> None:
    tasks = ("reach", "track", "track_motion")
    assert guess_task("touch the red ball", tasks) == "reach"
    assert guess_task("stay over the red ball", tasks) == "track"
    assert guess_task("follow the ball moving clockwise", tasks) == "track_motion"
    assert guess_task("stay over the red ball", ("reach",)) == "reach"


@pytest.mark.parametrize(("text", "tasks", "task"), [
    ("follow the red ball while it moves", ("track", "track_event"), "track_event"),
    ("when the lamp turns green, go to the blue cube", ("track", "track_event"), "track_event"),
    ("wait until the yellow cube stops, then touch it", ("track_motion", "track_event"), "track_event"),
    ("follow the one that keeps stopping", ("track", "track_motion", "track_event"), "track_motion"),
    ("follow the red ball", ("track_event", "track_occlusion"), "track_occlusion"),
])  # fmt: skip
def test_words_of_time_choose_their_task(text: str, tasks: tuple[str, ...], task: str) -> None:
    assert guess_task(text, tasks) == task


def test_words_of_a_task_that_the_policy_does_not_know_are_named() -> None:
    tasks = ("reach", "track")
    with pytest.raises(ValueError, match="is one for track_event, and the policy was trained on reach, track; take a"):
        guess_task("when the lamp turns green, follow the red ball", tasks)
    with pytest.raises(ValueError, match="is one for track_motion"):
        guess_task("follow the fastest cube", tasks)
    with pytest.raises(ValueError, match="must name one colour, names none"):  # what it lacks, the task itself says
        guess_task("follow the ball", tasks)


def test_words_that_no_task_can_be_told_are_refused_in_one_line() -> None:
    for tasks in (("reach",), ("track", "track_motion", "track_event")):
        for text in ("do not follow the red ball", "follow the red ball" + " please" * 15):
            with pytest.raises(ValueError, match=r"says what not to do|say it in at most 120") as caught:
                guess_task(text, tasks)
            assert "\n" not in str(caught.value)
