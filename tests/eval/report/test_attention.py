"""Attention as pictures: every attention fusion's maps end where they belong in the newest frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.policy import CrossAttentionConfig, FusionConfig, IntermediateConfig, PolicyConfig
from eval.report.attention import COLUMNS, Places, attention_sheet, heat_maps, word_heats
from vla_policy.contract import Shapes, fake_batch
from vla_policy.policy import VLAPolicy

PLACES = Places(grid=(2, 3), cameras=2, frames=3)
N, WORDS = 6, ("red", "ball")


def marked(queries: int, keys: int, at: tuple[Any, Any]) -> torch.Tensor:
    weights = torch.zeros(4, queries, keys)
    weights[:, at[0], at[1]] = 1.0
    return weights


@pytest.mark.parametrize(("name", "weights", "title"), [
    ("language_reads_vision_0", marked(5, 2 * N, (slice(0, 2), 4)), "language reads vision 0"),
    ("spatial_voter_reads_vision", marked(1, 2 * N, (0, 4)), "spatial voter reads vision"),
    ("decoder_space_1", marked(1, 2 * N, (0, 4)), "decoder space 1"),
    # Cameras, then frames, then places: the first camera's third frame begins at 12.
    ("language_reads_backbone_0", marked(5, 2 * 3 * N, (slice(0, 2), 12 + 4)), "language reads backbone 0"),
    ("backbone_reads_language_2", marked(2 * 3 * N, 5, (12 + 4, 1)), "backbone reads ball 2"),
    ("vision_reads_language_0", marked(2 * N, 5, (4, 0)), "vision reads red 0"),
    ("self_0", marked(2 * N + 5, 2 * N + 5, (slice(2 * N, 2 * N + 2), 4)), "self 0"),
])  # fmt: skip
def test_every_kind_of_map_finds_its_place(name: str, weights: torch.Tensor, title: str) -> None:
    found = heat_maps({name: weights}, PLACES, WORDS)
    assert list(found) == [title]
    expected = np.zeros((2, 3), np.float32)
    expected[1, 1] = 1.0
    np.testing.assert_allclose(found[title], expected)


def test_what_is_between_times_is_no_picture() -> None:
    assert heat_maps({"decoder_time_0": torch.ones(4, 3, 3)}, PLACES, WORDS) == {}


def test_padding_is_not_read_along() -> None:
    weights = torch.zeros(4, 5, 2 * N)
    weights[:, :2, 1], weights[:, 2:, 0] = 1.0, 9.0  # what padding reads
    [heat] = heat_maps({"language_reads_vision_0": weights}, PLACES, WORDS).values()
    assert heat[0, 0] == 0
    assert heat[0, 1] == 1


@pytest.mark.parametrize(
    ("fusion", "expected"),
    [
        ({"name": "bidirectional"}, {"vision reads", "language reads vision"}),
        (
            {"name": "cross_attention", "cross_attention": CrossAttentionConfig(direction="vision_reads_language")},
            {"vision reads"},
        ),
        ({"name": "cross_attention"}, {"language reads vision"}),
        ({"name": "self_attention"}, {"self"}),
        ({"name": "intermediate", "intermediate": IntermediateConfig(interaction="attention")}, {"backbone reads"}),
        (
            {"name": "intermediate"},
            {"backbone reads", "language reads backbone"},
        ),
        ({"name": "vote"}, {"spatial voter reads", "temporal voter reads", "language voter reads"}),
    ],
)
def test_every_attention_fusion_is_shown(fusion: dict[str, Any], expected: set[str]) -> None:
    base = PolicyConfig(width=16, attention_heads=2, frames=3, cameras=("front", "wrist"))
    head = replace(base.head, name="binned" if fusion["name"] == "vote" else "chunk_l1")
    shapes = Shapes(frames=3, cameras=2, size=32, proprioception=4, actions=2, vocabulary=20)
    policy = VLAPolicy(replace(base, head=head, fusion=FusionConfig(**fusion)), shapes).eval()
    policy.normaliser.set_statistics(torch.zeros(4), torch.ones(4))
    observation = fake_batch(shapes, base.head.chunk, batch=1, words=2).observation
    aux = policy.act(observation).aux
    places = Places(grid=(8, 8), cameras=2, frames=policy.encoder.grounded_frames)
    found = heat_maps({name: weights[0] for name, weights in aux.attention.items()}, places, WORDS)
    for title in {*expected, "decoder space"}:
        assert any(name.startswith(title) for name in found), (title, list(found))
    assert all(heat.shape == (8, 8) and heat.min() >= 0 and heat.sum() > 0 for heat in found.values())


def test_the_sheet_has_a_tile_a_map() -> None:
    grey = np.full((32, 32, 3), 120, np.uint8)
    one, many = (
        attention_sheet(grey, {f"map {i}": np.eye(4, dtype=np.float32) for i in range(count)}, 256)
        for count in (1, COLUMNS + 1)
    )
    assert one.shape[1] == many.shape[1] == 256
    assert one.shape[0] % 2 == many.shape[0] % 2 == 0
    assert many.shape[0] > 1.8 * one.shape[0]
    tile = one[-40:, :40].astype(int)
    assert (tile.max(-1) - tile.min(-1)).max() > 60  # heat over grey
    assert np.ptp(one[-60:, 80:].reshape(-1, 3), axis=0).max() == 0  # no tile there


def test_an_odd_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="width: got 255, expected an even number"):
        attention_sheet(np.zeros((4, 4, 3), np.uint8), {}, 255)


@pytest.mark.parametrize(("name", "weights"), [
    ("language_reads_vision_0", marked(5, 2 * N, (1, 4))),
    ("language_reads_backbone_0", marked(5, 2 * 3 * N, (1, 12 + 4))),
    ("vision_reads_language_0", marked(2 * N, 5, (4, 1))),
    ("self_0", marked(2 * N + 5, 2 * N + 5, (2 * N + 1, 4))),
])  # fmt: skip
def test_each_word_has_a_map_of_its_own(name: str, weights: torch.Tensor) -> None:
    found = word_heats({name: weights}, PLACES, WORDS)
    assert list(found) == ["red", "ball"]
    assert found["ball"].argmax() == 4
    assert not found["red"].any()


def test_a_word_that_comes_again_is_numbered_and_the_last_map_counts() -> None:
    maps = {
        "language_reads_vision_0": marked(5, 2 * N, (0, 1)),
        "language_reads_vision_1": marked(5, 2 * N, (0, 4)),
        "decoder_space_0": marked(1, 2 * N, (0, 2)),
    }
    found = word_heats(maps, PLACES, ("the", "the"))
    assert list(found) == ["the", "the 2"]
    assert found["the"].argmax() == 4
    assert word_heats({"decoder_space_0": maps["decoder_space_0"]}, PLACES, WORDS) == {}
