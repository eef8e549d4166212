"""How words are shown, where the mouse points, what the settings admit, and who may listen where."""

from __future__ import annotations

import socket
from dataclasses import replace

import numpy as np
import pytest

from configs.play import PlayConfig
from eval.play.commands import play
from eval.play.page import underlined
from eval.play.scene import on_plane
from eval.play.server import check_free
from vla_policy.checkpoint import DEFAULT_POLICY, load_checkpoint
from vla_policy.tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return load_checkpoint(DEFAULT_POLICY).tokenizer


def test_words_that_were_never_learned_are_underlined(tokenizer: TextTokenizer) -> None:
    shown = underlined("follow the flumph ball", tokenizer)
    before, _, after = shown.partition("<u")
    assert before == "follow the "
    assert after.endswith(">flumph</u> ball")


def test_words_that_are_cut_off_are_struck_out(tokenizer: TextTokenizer) -> None:
    shown = underlined("follow the blue ball " * 6, tokenizer)
    assert shown.count("</s>") == 24 - tokenizer.max_words


@pytest.mark.parametrize("text", ["<b>ball", "", "   ", "\ud800"])
def test_what_people_type_stays_text(text: str, tokenizer: TextTokenizer) -> None:
    assert "<b>" not in underlined(text, tokenizer)
    assert "<b>" not in underlined(text, None)


def test_the_mouse_moves_things_along_the_table() -> None:
    eye = np.array([1.0, 0.0, 1.0])
    np.testing.assert_allclose(on_plane(eye, np.array([0.5, 0.0, 0.5]), 0.0), [0, 0, 0], atol=1e-12)
    level = on_plane(eye, np.array([0.5, 0.2, 1.0]), 0.03)  # looks along the plane
    np.testing.assert_allclose(level, [0.5, 0.2, 0.03])
    above = on_plane(eye, np.array([0.5, 0.2, 1.5]), 0.03)  # looks away from it
    np.testing.assert_allclose(above, [0.5, 0.2, 0.03])


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70000},
        {"worlds": 0},
        {"picture_hz": 0.0},
        {"scene_hz": -1.0},
        {"hold_s": -1.0},
        {"picture": 1},
        {"picture": 353},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(PlayConfig(), **wrong)


def test_a_port_in_use_is_said_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"cannot listen at 127.0.0.1:{port}: .* --port 0"):
            check_free("127.0.0.1", port)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere"),
        (["--task", "trak"], "track"),
        (["--seed", "-1"], "seed -1"),
        (["--prot", "1"], "--port"),
        (["--port", "x"], "port"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_served(arguments: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        play(arguments)
