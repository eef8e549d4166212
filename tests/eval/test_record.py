"""Films of rollouts, and reading a user's own words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eval.record import film, guess_task, record
from vla_policy.checkpoint import load_checkpoint


def test_a_film_of_an_instruction_of_ones_own(tiny_checkpoint: Path, tmp_path: Path) -> None:
    recording = record(load_checkpoint(tiny_checkpoint), "track", 5, instruction="follow the red ball")
    assert recording.episode.target == "red ball"
    assert recording.episode.instruction == "follow the red ball"
    shapes = {frame.shape for frame in recording.frames}
    assert len(shapes) == 1
    assert not np.array_equal(recording.frames[0], recording.frames[60])
    assert film(recording, tmp_path / "out.mp4").stat().st_size > 1000


@pytest.mark.parametrize("text", ["follow the pink ball", "follow the ball", "follow the red ball and the blue cube"])
def test_an_instruction_that_names_no_one_thing_is_refused(tiny_checkpoint: Path, text: str) -> None:
    with pytest.raises(ValueError, match="must name one colour"):
        record(load_checkpoint(tiny_checkpoint), "track", 5, instruction=text)


def test_the_task_is_guessed_from_the_words() -> None:
    tasks = ("reach", "track", "track_motion")
    assert guess_task("touch the red ball", tasks) == "reach"
    assert guess_task("stay over the red ball", tasks) == "track"
    assert guess_task("follow the ball moving clockwise", tasks) == "track_motion"
    assert guess_task("stay over the red ball", ("reach",)) == "reach"
