from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.training import AugmentConfig
from training.data.augment import augment
from vla_policy.contract import Batch, Observation
from vla_policy.tokenizer import UNKNOWN

Flat = Callable[[Batch], dict[str, Tensor]]
OFF = AugmentConfig(unknown_words=0)


def drawn(b: int = 40, size: int = 32, cameras: int = 2) -> Batch:
    """Black pictures with one white rectangle each, and its box."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.zeros(b, 3, cameras, 3, size, size, dtype=torch.uint8)
    boxes = torch.zeros(b, 3, 4)
    for i in range(b):
        x, y = torch.randint(8, 18, (2,), generator=generator).tolist()
        frames[i, ..., y : y + 5, x : x + 3] = 255
        boxes[i] = torch.tensor([(x + 1.5) / size, (y + 2.5) / size, 3 / size, 5 / size])
    observation = Observation(
        frames=frames,
        agent_pos=torch.rand(b, 3, 4, generator=generator),
        tokens=torch.randint(2, 9, (b, 7), generator=generator),
        token_mask=torch.arange(7).expand(b, 7) < 5,
    )
    return Batch(
        observation=observation,
        action=torch.rand(b, 2, 3, generator=generator),
        action_mask=torch.ones(b, 2, dtype=torch.bool),
        boxes=boxes,
        visible=torch.ones(b, 3, dtype=torch.bool),
        event=torch.ones(b, 3, dtype=torch.bool),
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestAugment:
    def test_nothing_asked_for_nothing_changed(self, flat: Flat) -> None:
        batch = drawn()
        after = flat(augment(batch, OFF, generator()))
        assert all(torch.equal(value, after[name]) for name, value in flat(batch).items())

    def test_boxes_move_with_the_pixels(self) -> None:
        batch = drawn()
        after = augment(batch, AugmentConfig(shift=6, unknown_words=0), generator())
        size = 32
        moves = set()
        for i in range(len(batch)):
            for t in range(3):
                for v in range(2):
                    rows, columns = (after.observation.frames[i, t, v, 0] == 255).nonzero().T
                    found = torch.stack([columns.min() + columns.max() + 1, rows.min() + rows.max() + 1]) / 2 / size
                    torch.testing.assert_close(found, after.boxes[i, t, :2])
                    assert (len(columns.unique()), len(rows.unique())) == (3, 5)
            moves.add(tuple(((after.boxes[i, 0, :2] - batch.boxes[i, 0, :2]) * size).round().int().tolist()))
        assert torch.equal(after.boxes[..., 2:], batch.boxes[..., 2:])
        assert len(moves) > 20  # each sample has a move of its own, in both directions
        assert {x > 0 for x, _ in moves} == {y > 0 for _, y in moves} == {True, False}
        assert max(abs(m) for pair in moves for m in pair) <= 6

    def test_boxes_of_other_tubes_move_along(self) -> None:
        batch = drawn()
        more = torch.stack([batch.boxes, batch.boxes + 0.9], dim=2)
        batch = replace(batch, more_boxes=more, more_visible=torch.ones(more.shape[:3], dtype=torch.bool))
        after = augment(batch, AugmentConfig(shift=6, unknown_words=0), generator())
        assert after.more_boxes is not None
        assert after.more_visible is not None
        torch.testing.assert_close(after.more_boxes[:, :, 0], after.boxes)
        assert torch.equal(after.more_visible[:, :, 0], after.visible)
        assert not after.more_visible[:, :, 1].all()

    def test_the_border_is_repeated(self) -> None:
        batch = drawn()
        batch.observation.frames[..., 0, :] = 77
        batch.observation.frames[..., :, 0] = 77
        after = augment(batch, AugmentConfig(shift=4, unknown_words=0), generator())
        moved = (after.boxes[:, 0, :2] - batch.boxes[:, 0, :2]) * 32
        for i in range(len(batch)):
            x, y = moved[i].round().int().tolist()
            corner = after.observation.frames[i, 0, 0, 0]
            if y >= 0:
                assert (corner[: y + 1] == 77).all()
            if x >= 0:
                assert (corner[:, : x + 1] == 77).all()

    def test_a_target_pushed_out_of_the_picture_is_invisible(self) -> None:
        batch = drawn()
        batch.boxes[:, :, 0] = 1 / 32
        after = augment(batch, AugmentConfig(shift=6, unknown_words=0), generator())
        outside = after.boxes[:, :, 0] <= 0
        assert outside.any()
        assert torch.equal(after.visible, ~outside)

    def test_an_invisible_target_stays_invisible(self) -> None:
        batch = drawn()
        batch.visible[:, 1] = False
        assert not augment(batch, AugmentConfig(shift=6), generator()).visible[:, 1].any()

    def test_brightness_scales_each_sample_within_bounds(self) -> None:
        batch = drawn()
        batch.observation.frames.fill_(100)
        after = augment(batch, AugmentConfig(brightness=0.3, unknown_words=0), generator()).observation.frames
        assert after.dtype == torch.uint8
        per_sample = after.flatten(1)
        assert torch.equal(per_sample.min(1).values, per_sample.max(1).values)
        assert per_sample.min() >= 69
        assert per_sample.max() <= 130
        assert len(per_sample[:, 0].unique()) > 20
        batch.observation.frames.fill_(255)
        assert augment(batch, AugmentConfig(brightness=0.3), generator()).observation.frames.max() == 255

    def test_some_words_become_unknown_and_padding_never_does(self) -> None:
        batch = drawn(400)
        before = batch.observation
        after = augment(batch, AugmentConfig(unknown_words=0.25), generator()).observation
        changed = after.tokens != before.tokens
        assert (after.tokens[changed] == UNKNOWN).all()
        assert not changed[~before.token_mask].any()
        assert changed[before.token_mask].float().mean().item() == pytest.approx(0.25, abs=0.03)
        assert torch.equal(after.token_mask, before.token_mask)

    def test_a_tokenizer_without_an_unknown_word_keeps_its_words(self) -> None:
        batch = drawn()
        after = augment(batch, AugmentConfig(unknown_words=0.9), generator(), None)
        assert torch.equal(after.observation.tokens, batch.observation.tokens)

    def test_the_generator_decides_and_the_batch_is_left_alone(self, flat: Flat) -> None:
        config, batch = AugmentConfig(shift=5, brightness=0.2, unknown_words=0.3), drawn()
        before = {name: value.clone() for name, value in flat(batch).items()}
        first, second, other = (flat(augment(batch, config, generator(seed))) for seed in (1, 1, 2))
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert not torch.equal(first["frames"], other["frames"])
        assert all(torch.equal(value, before[name]) for name, value in flat(batch).items())

    def test_labels_other_than_boxes_stay(self, flat: Flat) -> None:
        batch = drawn()
        after = flat(augment(batch, AugmentConfig(shift=5, brightness=0.2, unknown_words=0.3), generator()))
        for name in ("action", "action_mask", "agent_pos", "token_mask", "event"):
            assert torch.equal(after[name], flat(batch)[name])

    @pytest.mark.parametrize(
        "wrong", [{"shift": -1}, {"brightness": 1.0}, {"brightness": -0.1}, {"unknown_words": 1.0}]
    )
    def test_impossible_settings_are_refused(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="shift must be 0 or more"):
            AugmentConfig(**wrong)
