"""The task that fits a user's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from envs.guessing import guess_task
from envs.task import use_task_modules


class TestGuessing:
    """Which task a user's words ask for, of those that a policy knows."""

    @pytest.mark.parametrize(("text", "tasks", "task"), [
        ("touch the red ball", ("reach", "track", "track_motion"), "reach"),
        ("touch the red ball", ("track", "reach"), "reach"),
        ("stay over the red ball", ("reach", "track", "track_motion"), "track"),
        ("stay over the red ball", ("reach",), "reach"),
        ("follow the ball moving clockwise", ("reach", "track", "track_motion"), "track_motion"),
        ("follow the red ball while it moves", ("track", "track_event"), "track_event"),
        ("when the lamp turns green, go to the blue cube", ("track", "track_event"), "track_event"),
        ("wait until the yellow cube stops, then touch it", ("track_motion", "track_event"), "track_event"),
        ("follow the one that keeps stopping", ("track", "track_motion", "track_event"), "track_motion"),
        ("follow the red ball", ("track_event", "track_occlusion"), "track_occlusion"),
    ])  # fmt: skip
    def test_the_words_choose(self, text: str, tasks: tuple[str, ...], task: str) -> None:
        assert guess_task(text, tasks) == task

    def test_words_of_a_task_that_the_policy_does_not_know_are_named(self) -> None:
        tasks = ("reach", "track")
        words = "is one for track_event, and the policy was trained on reach, track; take a"
        with pytest.raises(ValueError, match=words):
            guess_task("when the lamp turns green, follow the red ball", tasks)
        with pytest.raises(ValueError, match="is one for track_motion"):
            guess_task("follow the fastest cube", tasks)

    def test_what_the_words_lack_is_said(self) -> None:
        with pytest.raises(ValueError, match="must name one colour"):
            guess_task("follow the ball", ("reach", "track"))

    def test_tasks_that_read_nothing_are_no_obstacle(self, foreign: Path) -> None:
        use_task_modules([str(foreign)])
        assert guess_task("follow the red ball", ("dots/plain", "track")) == "track"
        with pytest.raises(ValueError, match="is one for track, and the policy was trained on dots/plain"):
            guess_task("follow the red ball", ("dots/plain",))
