"""Drawing what the policy saw, pointed at and did over a camera picture. Pure functions of uint8 pictures.

Colours are told apart by people with any colour vision, and never carry a meaning alone: the true box is
solid and green, the predicted one dashed and orange, the verdict is written out.

Every frame of one episode gets the same size: the strips' heights depend on the picture's width and on the
instruction only. All sides come out even, as H.264 wants them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Frame = NDArray[np.uint8]  # (H, W, 3)
Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

INK: Colour = (240, 243, 246)
MUTED: Colour = (150, 158, 168)
FAINT: Colour = (84, 91, 100)
STRIP: Colour = (22, 26, 31)
TRUE_BOX: Colour = (46, 204, 143)
PREDICTED_BOX: Colour = (255, 159, 28)
ACTION: Colour = (86, 196, 255)
SUCCESS: Colour = (46, 204, 143)
FAILURE: Colour = (255, 122, 92)

LONGEST = 240  # characters of an instruction that are shown
HEAT_ALPHA = 0.5
FULL_ARROW = 0.25
"""Length of the arrow of a full command (1.0), as a share of the picture's width."""

# Dark violet, magenta, orange, light yellow: brightness rises all the way, so it also reads in grey.
_HEAT_STOPS = np.array([[30, 10, 70], [135, 30, 110], [225, 80, 60], [250, 175, 60], [252, 250, 190]], np.float32)


def draw_overlay(
    frame: Frame,
    *,
    instruction: str,
    true_box: Sequence[float] | None = None,
    predicted_box: Sequence[float] | None = None,
    location: NDArray[np.floating] | None = None,
    action: tuple[float, float] | None = None,
    step: int | None = None,
    verdict: str | None = None,
    scale: int = 4,
    gripper: tuple[float, float] | None = None,
    smooth: bool = True,
) -> Frame:
    """One picture of the video: instruction above, picture with marks, legend and verdict below.

    Args:
        frame: (H, W, 3) uint8, as the policy saw it.
        true_box, predicted_box: (cx, cy, w, h) in [0, 1] of the picture; None: not visible, or not known.
        location: (h, w) non-negative weights of any scale and resolution; the brightest spot is the largest.
        action: (right, down) in picture axes, 1.0 being a full command; longer ones are drawn as 1.
        step: number shown in the corner of the picture.
        verdict: text below the picture, coloured if it starts with "success" or "fail".
        scale: how many pixels one pixel of `frame` becomes.
        gripper: (x, y) in [0, 1] where the arrow starts; None: the middle of the lower edge.
        smooth: enlarge with Lanczos; False shows the pixels as squares.

    Returns: (H', W', 3) uint8 with H' and W' even, W' = W * scale rounded up.
    """
    _check_frame(frame)
    if scale < 1:
        raise ValueError(f"scale: got {scale}, expected 1 or more")
    height, width = frame.shape[0] * scale, frame.shape[1] * scale
    enlarge = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    picture = Image.fromarray(frame).resize((width, height), enlarge)
    if location is not None:
        picture = blend_heat(picture, location)
    line = max(1, round(width / 160))
    canvas = ImageDraw.Draw(picture)
    if true_box is not None:
        _draw_box(canvas, _corners(true_box, "true_box", width, height), TRUE_BOX, line, dashed=False)
    if predicted_box is not None:
        _draw_box(canvas, _corners(predicted_box, "predicted_box", width, height), PREDICTED_BOX, line, dashed=True)
    if action is not None:
        _draw_action(canvas, action, gripper, width, height, line)
    font = _font(_text_size(width))
    if step is not None:
        small = _font(max(9, round(_text_size(width) * 0.85)))
        canvas.text(
            (width - 2 * line, 2 * line),
            str(step),
            fill=INK,
            font=small,
            anchor="ra",
            stroke_width=1,
            stroke_fill=STRIP,
        )
    present = {
        "true box": true_box is not None,
        "predicted": predicted_box is not None,
        "action": action is not None,
        "location": location is not None,
    }
    return _stack(
        _instruction_strip(instruction, width, font),
        np.asarray(picture, dtype=np.uint8),
        _legend_strip(present, verdict, width),
    )


def heat_colours(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """(h, w) in [0, 1] to (h, w, 3) colours in [0, 255] of the heat's colour scale."""
    place = np.clip(values, 0.0, 1.0) * (len(_HEAT_STOPS) - 1)
    below = np.minimum(place.astype(np.int64), len(_HEAT_STOPS) - 2)
    share = (place - below)[..., None].astype(np.float32)
    return np.asarray(_HEAT_STOPS[below] * (1.0 - share) + _HEAT_STOPS[below + 1] * share, dtype=np.float32)


# Marks on the picture --------------------------------------------------------------


def _check_frame(frame: Frame) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise ValueError(f"frame: got {frame.dtype} of shape {frame.shape}, expected uint8 (H, W, 3)")


def blend_heat(picture: Image.Image, heat: NDArray[np.floating]) -> Image.Image:
    """The picture with weights `(h, w)` of 0 or more laid over it, the brightest being the largest."""
    if heat.ndim != 2 or heat.size == 0:
        raise ValueError(f"heat: got shape {heat.shape}, expected (h, w)")
    if not np.isfinite(heat).all() or heat.min() < 0:
        raise ValueError("heat: got negative or non-finite weights, expected weights of 0 or more")
    peak = float(heat.max())
    if peak == 0.0:
        return picture
    small = Image.fromarray((heat / peak).astype(np.float32))
    # Bicubic may overshoot a little outside [0, 1].
    enlarged = np.clip(np.asarray(small.resize(picture.size, Image.Resampling.BICUBIC)), 0.0, 1.0)
    # The square root lifts what is weak but spread out; what gets no attention keeps its own colours.
    alpha = (HEAT_ALPHA * np.sqrt(enlarged))[..., None]
    blended = (1.0 - alpha) * np.asarray(picture, dtype=np.float32) + alpha * heat_colours(enlarged)
    return Image.fromarray(np.rint(blended).astype(np.uint8))


def _corners(box: Sequence[float], name: str, width: int, height: int) -> tuple[float, float, float, float]:
    values = [float(value) for value in box]
    if len(values) != 4 or not all(math.isfinite(value) for value in values):
        raise ValueError(f"{name}: got {values}, expected four finite numbers (cx, cy, w, h)")
    cx, cy, w, h = values
    w, h = max(w, 0.0), max(h, 0.0)
    return (
        min(max(cx - w / 2, 0.0), 1.0) * (width - 1),
        min(max(cy - h / 2, 0.0), 1.0) * (height - 1),
        min(max(cx + w / 2, 0.0), 1.0) * (width - 1),
        min(max(cy + h / 2, 0.0), 1.0) * (height - 1),
    )


def _draw_box(
    canvas: ImageDraw.ImageDraw,
    corners: tuple[float, float, float, float],
    colour: Colour,
    line: int,
    *,
    dashed: bool,
) -> None:
    left, top, right, bottom = corners
    edges = [
        ((left, top), (right, top)),
        ((right, top), (right, bottom)),
        ((right, bottom), (left, bottom)),
        ((left, bottom), (left, top)),
    ]
    pieces = [piece for edge in edges for piece in (_dashes(*edge, 4 * line) if dashed else [edge])]
    for start, end in pieces:
        canvas.line([start, end], fill=STRIP, width=line + 2)
    for start, end in pieces:
        canvas.line([start, end], fill=colour, width=line)


Point = tuple[float, float]


def _dashes(start: Point, end: Point, dash: float) -> list[tuple[Point, Point]]:
    """Dashes and gaps of about equal length that begin and end with a dash, so that corners stay visible."""
    length = math.dist(start, end)
    parts = max(1, 2 * round(length / (2 * dash)) + 1)

    def at(share: float) -> Point:
        return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share

    return [(at(i / parts), at((i + 1) / parts)) for i in range(0, parts, 2)]


def _draw_action(
    canvas: ImageDraw.ImageDraw,
    action: tuple[float, float],
    gripper: tuple[float, float] | None,
    width: int,
    height: int,
    line: int,
) -> None:
    right, down = float(action[0]), float(action[1])
    if not (math.isfinite(right) and math.isfinite(down)):
        raise ValueError(f"action: got {action}, expected two finite numbers (right, down)")
    x, y = gripper if gripper is not None else (0.5, 0.92)
    start = (min(max(x, 0.0), 1.0) * (width - 1), min(max(y, 0.0), 1.0) * (height - 1))
    length = math.hypot(right, down)
    reach = FULL_ARROW * width * min(length, 1.0)
    dot = 1.5 * line
    head = 4.0 * line
    for colour, grow in ((STRIP, 1), (ACTION, 0)):
        size = dot + grow
        canvas.ellipse([start[0] - size, start[1] - size, start[0] + size, start[1] + size], fill=colour)
        if reach < dot:  # as good as standing still: the dot alone
            continue
        ux, uy = right / length, down / length
        tip = (start[0] + ux * (reach + grow), start[1] + uy * (reach + grow))
        depth = min(head, reach) + grow
        neck = (tip[0] - ux * depth, tip[1] - uy * depth)
        half = 0.6 * depth + grow
        canvas.line([start, neck], fill=colour, width=line + 2 * grow)
        sides = [(neck[0] - uy * half, neck[1] + ux * half), (neck[0] + uy * half, neck[1] - ux * half)]
        canvas.polygon([tip, *sides], fill=colour)


# Strips above and below ------------------------------------------------------------


def _text_size(width: int) -> int:
    return min(max(round(width / 20), 11), 22)


@cache
def _font(size: int) -> Font:
    return ImageFont.load_default(size)


def _wrap(text: str, font: Font, width: float) -> list[str]:
    """Break at spaces so that each line fits; a word longer than a line is broken where it has to be."""
    lines: list[str] = []
    current = ""
    for word in text.split():
        attempt = f"{current} {word}".strip()
        if font.getlength(attempt) <= width:
            current = attempt
            continue
        if current:
            lines.append(current)
        current = word
        while font.getlength(current) > width and len(current) > 1:
            fits = next(n for n in range(len(current) - 1, 0, -1) if n == 1 or font.getlength(current[:n]) <= width)
            lines.append(current[:fits])
            current = current[fits:]
    return [*lines, current] if current or not lines else lines


def fit_text(text: str, width: float, size: int) -> tuple[str, Font]:
    """The text on one line: smaller if it must be, cut short with dots if that is not enough."""
    smallest = max(9, round(0.7 * size))
    while size > smallest and _font(size).getlength(text) > width:
        size -= 1
    font = _font(size)
    if font.getlength(text) > width:
        longest = min(len(text) - 1, LONGEST)
        kept = next((n for n in range(longest, 0, -1) if font.getlength(text[:n] + "...") <= width), 0)
        text = text[:kept].rstrip() + "..."
    return text, font


def _instruction_strip(instruction: str, width: int, font: Font) -> Frame:
    margin = max(4, round(width / 50))
    leading = round(_text_size(width) * 1.3)
    shown = instruction if len(instruction) <= LONGEST else instruction[:LONGEST] + "..."
    lines = _wrap(shown, font, width - 2 * margin)
    strip = Image.new("RGB", (width, leading * len(lines) + 2 * margin), STRIP)
    canvas = ImageDraw.Draw(strip)
    for row, text in enumerate(lines):
        canvas.text((margin, margin + leading * (row + 0.5)), text, fill=INK, font=font, anchor="lm")
    return np.asarray(strip, dtype=np.uint8)


def _legend_strip(present: dict[str, bool], verdict: str | None, width: int) -> Frame:
    """Two fixed rows: the meaning of the marks, dimmed where this frame has none, and the verdict."""
    margin = max(4, round(width / 50))
    size = max(9, round(_text_size(width) * 0.72))
    font = _font(size)
    row_height, verdict_height = round(size * 1.5), round(_text_size(width) * 1.3)
    columns = 4 if width >= 4 * (size * 6.4) else 2
    rows = 4 // columns
    strip = Image.new("RGB", (width, margin + rows * row_height + verdict_height + margin), STRIP)
    canvas = ImageDraw.Draw(strip)
    for i, (name, shown) in enumerate(present.items()):
        x = margin + (i % columns) * (width - 2 * margin) / columns
        y = margin + (i // columns + 0.5) * row_height
        _draw_key(canvas, name, x, y, size, shown)
        canvas.text((x + size * 1.5, y), name, fill=MUTED if shown else FAINT, font=font, anchor="lm")
    if verdict:
        word = verdict.lower()
        colour = SUCCESS if word.startswith("success") else FAILURE if word.startswith("fail") else INK
        text, verdict_font = fit_text(verdict, width - 2 * margin, _text_size(width))
        y = margin + rows * row_height + verdict_height / 2
        canvas.text((margin, y), text, fill=colour, font=verdict_font, anchor="lm")
    return np.asarray(strip, dtype=np.uint8)


def _draw_key(canvas: ImageDraw.ImageDraw, name: str, x: float, y: float, size: int, shown: bool) -> None:
    half = size * 0.38
    square = (x, y - half, x + 2 * half, y + half)
    if name == "location":
        steps, half = 9, half * 1.2
        for i, colour in enumerate(heat_colours(np.linspace(0.0, 1.0, steps)[None])[0] if shown else [FAINT] * steps):
            fill = (int(colour[0]), int(colour[1]), int(colour[2]))
            left = x + 2 * half * i / steps
            canvas.rectangle([left, y - 0.7 * half, left + 2 * half / steps, y + 0.7 * half], fill=fill)
    elif name == "action":
        fill = ACTION if shown else FAINT
        canvas.line([(x, y), (x + half, y)], fill=fill, width=2)
        canvas.polygon([(x + half, y - half), (x + 2 * half, y), (x + half, y + half)], fill=fill)
    else:
        solid = name == "true box"
        colour = (TRUE_BOX if solid else PREDICTED_BOX) if shown else FAINT
        corners = [
            (square[0], square[1]),
            (square[2], square[1]),
            (square[2], square[3]),
            (square[0], square[3]),
        ]
        for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
            for piece in [(start, end)] if solid else _dashes(start, end, 2 * half / 3):
                canvas.line(piece, fill=colour, width=2)


def _stack(*parts: Frame) -> Frame:
    stacked = np.concatenate(parts, axis=0)
    odd = (stacked.shape[0] % 2, stacked.shape[1] % 2)
    padded = np.empty((stacked.shape[0] + odd[0], stacked.shape[1] + odd[1], 3), np.uint8)
    padded[:] = np.array(STRIP, np.uint8)
    padded[: stacked.shape[0], : stacked.shape[1]] = stacked
    return padded
