"""The drawn frames and the files they are written to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from eval.report.overlay import ACTION, FAILURE, PREDICTED_BOX, SUCCESS, TRUE_BOX, draw_overlay, heat_colours
from eval.report.video import write_mp4, write_png, write_webp

Frame = NDArray[np.uint8]
GREY: Frame = np.full((64, 64, 3), 128, np.uint8)


def count(picture: Frame, colour: tuple[int, int, int]) -> int:
    return int((picture == np.array(colour, np.uint8)).all(axis=-1).sum())


def picture_rows(plain: Frame, scale: int) -> slice:
    """Where the picture lies between the strips: the rows that are grey at the left edge."""
    rows = np.flatnonzero((plain[:, 0] == 128).all(axis=-1))
    assert len(rows) == 64 * scale
    return slice(int(rows[0]), int(rows[-1]) + 1)


@pytest.mark.parametrize("side", [63, 64, 65])
@pytest.mark.parametrize("scale", [1, 3, 6])
def test_sides_are_even_and_the_size_is_the_same_throughout_an_episode(side: int, scale: int) -> None:
    frame = np.zeros((side, side, 3), np.uint8)
    box = (0.5, 0.5, 0.2, 0.2)
    bare = draw_overlay(frame, instruction="track the red ball", scale=scale)
    full = draw_overlay(
        frame,
        instruction="track the red ball",
        true_box=box,
        predicted_box=box,
        location=np.eye(8),
        action=(1.0, 0.0),
        step=119,
        verdict="failure: a reason that is much too long to fit on one line of a picture this narrow " * 3,
        scale=scale,
    )
    assert bare.shape == full.shape
    assert bare.dtype == np.uint8
    assert bare.shape[0] % 2 == 0
    assert bare.shape[1] == side * scale + (side * scale) % 2


def test_the_frame_itself_is_left_alone() -> None:
    frame = GREY.copy()
    out = draw_overlay(frame, instruction="x", true_box=(0.5, 0.5, 0.5, 0.5), scale=1)
    assert (frame == 128).all()
    assert not np.shares_memory(frame, out)


def test_nearest_keeps_pixels() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    out = draw_overlay(frame, instruction="x", scale=4, smooth=False)
    enlarged = frame.repeat(4, axis=0).repeat(4, axis=1)
    assert any(np.array_equal(out[top : top + 64], enlarged) for top in range(out.shape[0] - 63))


def test_boxes_lie_where_they_were_said_to_be() -> None:
    scale, box = 6, (0.25, 0.5, 0.2, 0.3)
    plain = draw_overlay(GREY, instruction="x", scale=scale)
    rows = picture_rows(plain, scale)
    for name, colour in (("true_box", TRUE_BOX), ("predicted_box", PREDICTED_BOX)):
        marks: dict[str, Any] = {name: box}
        picture = draw_overlay(GREY, instruction="x", scale=scale, **marks)[rows]
        ys, xs = np.nonzero((picture == np.array(colour, np.uint8)).all(axis=-1))
        side = 64 * scale
        found = (xs.min() / side, xs.max() / side, ys.min() / side, ys.max() / side)
        assert found == pytest.approx((0.15, 0.35, 0.35, 0.65), abs=0.01)


def test_the_true_box_is_solid_and_the_predicted_one_dashed() -> None:
    box = (0.5, 0.5, 0.5, 0.5)
    rows = picture_rows(draw_overlay(GREY, instruction="x", scale=6), 6)
    solid = count(draw_overlay(GREY, instruction="x", true_box=box, scale=6)[rows], TRUE_BOX)
    dashed = count(draw_overlay(GREY, instruction="x", predicted_box=box, scale=6)[rows], PREDICTED_BOX)
    assert 0.35 * solid < dashed < 0.8 * solid


def test_boxes_outside_the_picture_are_cut_at_its_edge() -> None:
    for box in ((2.0, 2.0, 0.1, 0.1), (0.5, 0.5, 9.0, 9.0), (0.5, 0.5, 0.0, 0.0)):
        draw_overlay(GREY, instruction="x", true_box=box, predicted_box=box)


def test_the_arrow_points_where_the_action_goes() -> None:
    rows = picture_rows(draw_overlay(GREY, instruction="x", scale=6), 6)

    def tip_and_start(action: tuple[float, float]) -> NDArray[np.float64]:
        picture = draw_overlay(GREY, instruction="x", action=action, gripper=(0.5, 0.5), scale=6)[rows]
        ys, xs = np.nonzero((picture == np.array(ACTION, np.uint8)).all(axis=-1))
        return np.array([xs.min(), xs.max(), ys.min(), ys.max()]) / (64 * 6) - 0.5

    left, right, up, down = tip_and_start((1.0, 0.0))
    assert right == pytest.approx(0.25, abs=0.02)
    assert max(-left, -up, down) < 0.06
    left, right, up, down = tip_and_start((0.0, -0.5))
    assert -up == pytest.approx(0.125, abs=0.02)
    assert down < 0.06
    assert tip_and_start((4.0, 0.0)) == pytest.approx(tip_and_start((1.0, 0.0)))  # no longer than a full command
    left, right, up, down = tip_and_start((0.0, 0.0))
    assert max(-left, right, -up, down) < 0.05


def test_attention_brightens_its_spot_only() -> None:
    attention = np.zeros((8, 8))
    attention[1, 6] = 3.7  # any scale
    rows = picture_rows(draw_overlay(GREY, instruction="x"), 4)
    picture = draw_overlay(GREY, instruction="x", location=attention)[rows]
    changed = np.abs(picture.astype(int) - 128).sum(axis=-1)
    y, x = np.unravel_index(changed.argmax(), changed.shape)
    assert (x / 256, y / 256) == pytest.approx((6.5 / 8, 1.5 / 8), abs=0.1)
    assert changed[-40:, :40].max() == 0
    unchanged = draw_overlay(GREY, instruction="x", location=np.zeros((8, 8)))[rows]
    assert (unchanged == 128).all()


def test_heat_colours_brighten_all_the_way() -> None:
    brightness = heat_colours(np.linspace(0, 1, 50)[None])[0] @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(brightness) > 0).all()


def test_the_verdict_is_coloured() -> None:
    assert count(draw_overlay(GREY, instruction="x", verdict="success"), SUCCESS) > 10
    assert count(draw_overlay(GREY, instruction="x", verdict="Failure: lost target"), FAILURE) > 10


def test_long_instructions_are_wrapped_whole() -> None:
    short = draw_overlay(GREY, instruction="track")
    long = draw_overlay(GREY, instruction="keep the gripper right above the red ball that moves " * 2)
    endless = draw_overlay(GREY, instruction="w" * 200)
    assert short.shape[0] < long.shape[0] < 2 * short.shape[0]
    assert endless.shape[0] > short.shape[0]
    assert draw_overlay(GREY, instruction="").shape == short.shape


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"frame": GREY.astype(np.float32)}, "frame: got float32"),
        ({"frame": GREY[..., 0]}, r"frame: got uint8 of shape \(64, 64\)"),
        ({"scale": 0}, "scale: got 0"),
        ({"true_box": (0.5, 0.5, 0.1)}, r"true_box: got \[0.5, 0.5, 0.1\], expected four"),
        ({"predicted_box": (0.5, 0.5, 0.1, float("nan"))}, "predicted_box: got"),
        ({"location": np.zeros((2, 2, 2))}, r"heat: got shape \(2, 2, 2\)"),
        ({"location": -np.ones((2, 2))}, "heat: got negative"),
        ({"action": (float("nan"), 0.0)}, "action: got"),
    ],
)
def test_bad_arguments_say_what_was_got(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        draw_overlay(**({"frame": GREY, "instruction": "x"} | changes))


# Files ---------------------------------------------------------------------------------


@pytest.fixture
def frames() -> list[Frame]:
    return [
        draw_overlay(np.full((48, 48, 3), 20 * i, np.uint8), instruction="track the red ball", step=i) for i in range(9)
    ]


def test_mp4_is_what_browsers_play(frames: list[Frame], tmp_path: Path) -> None:
    path = write_mp4(tmp_path / "new" / "a.mp4", iter(frames), fps=20)
    facts = iio.immeta(path, plugin="pyav")
    assert facts["codec"] == "h264"
    assert facts["video_format"] == "yuv420p"
    assert facts["fps"] == 20
    read = iio.imread(path, plugin="pyav")
    assert read.shape == (9, *frames[0].shape)
    assert np.abs(read.astype(int) - np.stack(frames)).mean() < 6
    assert list(path.parent.iterdir()) == [path]


def test_webp_loops_at_the_right_speed(frames: list[Frame], tmp_path: Path) -> None:
    path = write_webp(tmp_path / "a.webp", frames, fps=20, width=100, every=3, hold_last_s=0.8)
    with Image.open(path) as animation:
        assert animation.format == "WEBP"
        assert animation.size[0] == 100
        assert animation.n_frames == 4  # 0, 3, 6 and the last
        assert animation.info["loop"] == 0
        durations = []
        for i in range(animation.n_frames):
            animation.seek(i)
            animation.load()
            durations.append(animation.info["duration"])
    assert durations == [150, 150, 100, 800]


def test_png_is_exact(frames: list[Frame], tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", frames[4])
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), frames[4])


def test_bad_videos_are_refused_and_leave_nothing(frames: list[Frame], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.mp4: got no frames"):
        write_mp4(tmp_path / "a.mp4", [], fps=20)
    with pytest.raises(ValueError, match=r"frame 1: got .* as in frame 0"):
        write_mp4(tmp_path / "a.mp4", [frames[0], frames[0][:-2]], fps=20)
    with pytest.raises(ValueError, match="expected even sides"):
        write_mp4(tmp_path / "a.mp4", [frames[0][:-1]], fps=20)
    with pytest.raises(ValueError, match="frame 0: got float64"):
        write_webp(tmp_path / "a.webp", [np.zeros((4, 4, 3))], fps=20)  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"ending in \.avi, expected \.mp4"):
        write_mp4(tmp_path / "a.avi", frames, fps=20)
    with pytest.raises(ValueError, match="fps: got 0"):
        write_mp4(tmp_path / "a.mp4", frames, fps=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["x" * 10_000, "word " * 2_000])
def test_a_text_of_any_length_is_drawn_at_once(text: str) -> None:
    drawn = draw_overlay(np.zeros((64, 64, 3), np.uint8), instruction=text)
    assert drawn.shape[0] < 1000
