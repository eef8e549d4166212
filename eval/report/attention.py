"""Attention maps as pictures: what each of them looks at in the newest frame of the first camera.

Maps are told apart by their names, `<reader>_reads_<read>_<layer>`, as fusions and decoder give them. Where words read
places, the heat is how much each place is read, over the words of the sentence; where places read words, it is how much
each place reads, above the least, the one word on which the places differ most, which the title then names.

M heads, Q queries, K keys, V cameras, T frames, h w grid, n = h·w.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from eval.report.overlay import INK, STRIP, Frame, blend_heat, fit_text

VISUAL = ("vision", "backbone")  # sides whose tokens are places
COLUMNS = 4  # of a sheet

Heat = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Places:
    """How visual tokens lie: (h, w) of one camera's grid, cameras, frames of a backbone's tokens."""

    grid: tuple[int, int]
    cameras: int
    frames: int

    @property
    def cells(self) -> int:
        return self.grid[0] * self.grid[1]

    def newest(self, side: str, count: int) -> slice:
        """The first camera's newest frame among a side's `count` tokens.

        A backbone's tokens are ordered by camera, frame, place; those after it by moment, camera, place.
        """
        end = self.frames * self.cells if side == "backbone" else count - (self.cameras - 1) * self.cells
        return slice(end - self.cells, end)


def heat_maps(attention: Mapping[str, Tensor], places: Places, words: Sequence[str]) -> dict[str, Heat]:
    """Heat `(h, w)` by title, of every map that has places on one side.

    Args:
        attention: one episode's maps by name, `(M, Q, K)` each.
        words: the tokens that the policy reads, without padding.
    """
    found = {}
    for name, weights in attention.items():
        mean = weights.float().mean(0).cpu().numpy()
        title, heat = _heat(name, mean, places, words)
        if heat is not None:
            found[title] = heat.reshape(places.grid).astype(np.float32)
    return found


def word_heats(attention: Mapping[str, Tensor], places: Places, words: Sequence[str]) -> dict[str, Heat]:
    """Heat `(h, w)` by word, of the last map that relates single words to places; empty where no map does.

    A word that comes again has a number behind it.
    """
    by_word: Heat | None = None
    for name, weights in attention.items():
        mean = weights.float().mean(0).cpu().numpy()
        found = _by_word(name, mean, places, len(words))
        by_word = by_word if found is None else found
    if by_word is None:
        return {}
    titles = [w if words.index(w) == i else f"{w} {words[: i + 1].count(w)}" for i, w in enumerate(words)]
    return {title: heat.reshape(places.grid).astype(np.float32) for title, heat in zip(titles, by_word, strict=True)}


def _by_word(name: str, weights_QK: Heat, places: Places, words: int) -> Heat | None:
    """How much each word has to do with each place, (words, n); None of a map that does not say."""
    reader, _, read = re.sub(r"_\d+$", "", name).partition("_reads_")
    if reader == "self":
        visual = places.cameras * places.cells
        return weights_QK[visual : visual + words, places.newest("vision", visual)]
    if read in VISUAL and "language" in reader and weights_QK.shape[0] >= words:
        return weights_QK[:words, places.newest(read, weights_QK.shape[1])]
    if reader in VISUAL and weights_QK.shape[1] >= words > 1:
        heat = weights_QK[places.newest(reader, weights_QK.shape[0]), :words].T
        return heat - heat.min(axis=1, keepdims=True)
    return None


def _heat(name: str, weights_QK: Heat, places: Places, words: Sequence[str]) -> tuple[str, Heat | None]:
    title = name.replace("_", " ")
    stem = re.sub(r"_\d+$", "", name)
    reader, _, read = stem.partition("_reads_")
    if stem == "decoder_space":
        return title, weights_QK[0, : places.cells]  # of one frame; words may follow
    if stem == "self":  # places, then words, in one sequence
        visual = places.cameras * places.cells
        return title, weights_QK[visual : visual + len(words), places.newest("vision", visual)].mean(0)
    if read in VISUAL:
        rows = weights_QK[: len(words)] if "language" in reader else weights_QK
        return title, rows[:, places.newest(read, weights_QK.shape[1])].mean(0)
    if reader in VISUAL and weights_QK.shape[1] > 1:  # one key, as of a bag of words, is all that can be read
        by_word = weights_QK[places.newest(reader, weights_QK.shape[0]), : len(words)]
        chosen = int(by_word.var(0).argmax())
        # Every place reads something: what tells the places apart is what is above the least of them.
        return title.replace("language", words[chosen]), by_word[:, chosen] - by_word[:, chosen].min()
    return title, None


def attention_sheet(frame: Frame, heats: Mapping[str, Heat], width: int) -> Frame:
    """All heat maps over the same picture, side by side with their titles, `(H, width, 3)`, both sides even."""
    if width % 2:
        raise ValueError(f"width: got {width}, expected an even number")
    tile = width // COLUMNS
    line = max(11, tile // 10)
    height = tile + line + 4
    rows = -(-len(heats) // COLUMNS)
    sheet = Image.new("RGB", (width, rows * height + rows * height % 2), STRIP)
    canvas = ImageDraw.Draw(sheet)
    # Grey, so that every colour belongs to the heat.
    small = Image.fromarray(frame).convert("L").convert("RGB").resize((tile - 2, tile - 2), Image.Resampling.LANCZOS)
    for i, (title, heat) in enumerate(heats.items()):
        left, top = (i % COLUMNS) * tile, (i // COLUMNS) * height
        text, font = fit_text(title, tile - 4, line - 1)
        canvas.text((left + 2, top + line / 2 + 1), text, fill=INK, font=font, anchor="lm")
        sheet.paste(blend_heat(small, heat), (left + 1, top + line + 2))
    return np.asarray(sheet, dtype=np.uint8)
