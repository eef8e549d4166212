"""Progress without a terminal."""

from __future__ import annotations

import pytest

from training.progress import Progress, brief


def test_work_that_is_reported_once_has_no_rate(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("ground", 200, "steps") as progress:
        progress.update(200)
    assert capsys.readouterr().err == "ground: 200/200 steps\n"


def test_the_rate_is_of_what_was_done_since_the_first_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 5.0, 10.0, 20.0])
    monkeypatch.setattr("training.progress.time.monotonic", lambda: next(now))
    with Progress("train", 500, "steps") as progress:
        for done in (100, 200, 500):
            progress.update(done)
    assert capsys.readouterr().err == ("train: 200/500 steps, 10.0/s, 30 s left\ntrain: 500/500 steps, 20.0/s\n")


@pytest.mark.parametrize(("rate", "words"), [(0.567, "0.57"), (5.0, "5"), (9.99, "10"), (412.4, "412")])
def test_a_slow_rate_is_not_rounded_to_nothing(rate: float, words: str) -> None:
    assert brief(rate) == words
