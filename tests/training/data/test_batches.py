from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from training.data.batches import SampleConfig, Sampler
from training.data.episodes import Dataset, Episode, open_dataset
from training.data.writer import write_dataset
from vla_policy.contract import Batch
from vla_policy.tokenizer import WordTokenizer

WriteSmall = Callable[..., Dataset]
Flat = Callable[[Batch], dict[str, Tensor]]
SamplerOf = Callable[..., tuple[Sampler, WordTokenizer]]
OneByOne = Callable[..., dict[str, np.ndarray]]


@pytest.mark.parametrize(("frames", "stride"), [(3, 2), (20, 1), (8, 3)])
def test_whole_videos_are_padded_at_their_ends_to_the_longest(
    write_small: WriteSmall, frames: int, stride: int
) -> None:
    data = write_small()
    tokenizer = WordTokenizer.train(data.texts, 8)
    samples = SampleConfig(
        ages=tuple(stride * i for i in reversed(range(frames))), chunk=1, cameras=("front",), whole=True
    )
    sampler = Sampler([data], samples, tokenizer, ["dx", "dy"])
    offsets, targets = data.arrays["offsets"], data.arrays["targets"]
    steps = np.arange(data.steps)
    batch = sampler.gather([steps])
    mask = batch.observation.frame_mask
    assert mask is not None
    assert mask.sum(1).max() == mask.shape[1] == batch.observation.frames.shape[1] == batch.boxes.shape[1]
    for step in steps:
        episode = int(np.searchsorted(offsets, step, side="right")) - 1
        start, end = int(offsets[episode]), int(offsets[episode + 1])
        latest = end - 1 - (frames - 1) * stride
        begin = min(step, latest) if latest > start else start + (step - start) % stride
        rows = list(range(begin, end, stride))[:frames]
        assert mask[step].tolist() == [i < len(rows) for i in range(mask.shape[1])]
        found = batch.observation.frames[step, : len(rows), 0].movedim(1, -1).numpy()
        np.testing.assert_array_equal(found, data.arrays["pixels"][rows, 0])
        named = targets[episode]
        first, last = data.arrays["events"][episode, named]
        event = [first <= row - start < last for row in rows]
        assert batch.event[step, : len(rows)].tolist() == event
        np.testing.assert_array_equal(batch.boxes[step, : len(rows)], data.arrays["boxes"][rows, 0, named])


class TestGather:
    @pytest.mark.parametrize(("ages", "chunk"), [((0,), 1), ((4, 2, 0), 4), ((15, 10, 5, 0), 8), ((7, 2, 0), 4)])
    @pytest.mark.parametrize("cameras", [("front",), ("wrist",), ("wrist", "front")])
    def test_every_sample_is_what_a_plain_loop_gives(
        self,
        write_small: WriteSmall,
        ages: tuple[int, ...],
        chunk: int,
        cameras: tuple[str, ...],
        flat: Flat,
        sampler_of: SamplerOf,
        one_by_one: OneByOne,
    ) -> None:
        data = write_small(cameras=("front", "wrist"))
        sampler, tokenizer = sampler_of([data], ages=ages, chunk=chunk, cameras=cameras)
        steps = np.random.default_rng(0).permutation(data.steps)
        batch = flat(sampler.gather([steps]))
        for i, step in enumerate(steps):
            expected = one_by_one(data, tokenizer, sampler.config, ("dx", "dy"), int(step))
            for name, value in expected.items():
                got = batch[name][i].numpy()
                if name in ("tokens", "token_mask"):  # padding that no sample needs is left out
                    assert not value[len(got) :].any()
                    value = value[: len(got)]
                np.testing.assert_array_equal(got, value, err_msg=f"{name} of step {step}")

    def test_any_object_of_the_scene_can_be_named(
        self, write_small: WriteSmall, flat: Flat, sampler_of: SamplerOf, one_by_one: OneByOne
    ) -> None:
        data = write_small()
        sampler, tokenizer = sampler_of([data])
        steps = np.arange(data.steps)
        for named in (0, 1):
            batch = flat(sampler.gather([steps], [np.full(data.steps, named)]))
            for step in steps:
                expected = one_by_one(data, tokenizer, sampler.config, ("dx", "dy"), int(step), named)
                for name, value in expected.items():
                    got = batch[name][int(step)].numpy()
                    np.testing.assert_array_equal(got, value[: len(got)], err_msg=f"{name} of step {step}")

    def test_boxes_of_other_tubes_come_along(self, write_small: WriteSmall, sampler_of: SamplerOf) -> None:
        data = write_small(cameras=("front", "wrist"))
        arrays = {**data.arrays, "goal_boxes": 1 - data.arrays["boxes"], "goal_visible": ~data.arrays["visible"]}
        data = replace(data, arrays=arrays)
        tubes = (("wrist", "target"), ("wrist", "goal"), ("front", "target"), ("front", "goal"))
        sampler, _ = sampler_of([data], ages=(0,), cameras=("wrist", "front"), tubes=tubes)
        batch = sampler.gather([np.arange(data.steps)])
        boxes, visible = batch.tubes
        assert boxes.shape == (data.steps, 1, 4, 4)
        targets = arrays["targets"][np.repeat(np.arange(data.episodes), np.diff(arrays["offsets"]))]
        for step, target in enumerate(targets):
            for tube, (camera, thing) in enumerate(tubes):
                prefix, seen_by = ("goal_" if thing == "goal" else ""), ("front", "wrist").index(camera)
                expected = arrays[f"{prefix}boxes"][step, seen_by, target]
                np.testing.assert_array_equal(boxes[step, 0, tube], expected)
                assert visible[step, 0, tube] == arrays[f"{prefix}visible"][step, seen_by, target]

    def test_where_nobody_says_where_things_are_to_go_no_goal_is_visible(
        self, write_small: WriteSmall, sampler_of: SamplerOf
    ) -> None:
        data = write_small()
        sampler, _ = sampler_of([data], ages=(0,), tubes=(("front", "target"), ("front", "goal")))
        _, visible = sampler.gather([np.arange(data.steps)]).tubes
        assert not visible[:, :, 1].any()
        assert visible[:, :, 0].any()

    def test_a_chunk_longer_than_the_labels_is_refused(self, write_small: WriteSmall, sampler_of: SamplerOf) -> None:
        with pytest.raises(ValueError, match=r"labels look 8 steps ahead; policy\.head\.chunk 9 exceeds it"):
            sampler_of([write_small()], chunk=9)

    def test_types_are_those_of_the_contract(self, write_small: WriteSmall, flat: Flat, sampler_of: SamplerOf) -> None:
        sampler, _ = sampler_of([write_small()])
        types = {name: value.dtype for name, value in flat(sampler.gather([np.arange(3)])).items()}
        floats = dict.fromkeys(("agent_pos", "action", "boxes"), torch.float32)
        bools = dict.fromkeys(("token_mask", "action_mask", "visible", "event"), torch.bool)
        assert types == {"frames": torch.uint8, "tokens": torch.int64, **floats, **bools}

    def test_before_the_start_the_first_frame_is_repeated(self, write_small: WriteSmall, sampler_of: SamplerOf) -> None:
        data = write_small(lengths=(5, 6))
        sampler, _ = sampler_of([data])
        frames = sampler.gather([np.array([5, 6, 7])]).observation.frames  # the second episode's first three steps
        first = torch.from_numpy(data.arrays["pixels"][5].copy()).movedim(-1, 1)
        assert torch.equal(frames[0], first.expand_as(frames[0]))
        assert torch.equal(frames[1, :2], first.expand_as(frames[1, :2]))
        assert torch.equal(frames[2, 1], first)  # two steps back is the start itself

    def test_past_the_end_actions_are_masked(self, write_small: WriteSmall, sampler_of: SamplerOf) -> None:
        sampler, _ = sampler_of([write_small(lengths=(5, 6))], chunk=4)
        mask = sampler.gather([np.array([0, 1, 2, 3, 4, 5])]).action_mask
        assert mask.sum(1).tolist() == [4, 4, 3, 2, 1, 4]
        assert (mask[:, :-1] >= mask[:, 1:]).all()

    def test_the_layout_needs_no_copy_for_channels_last(self, write_small: WriteSmall, sampler_of: SamplerOf) -> None:
        sampler, _ = sampler_of([write_small()])
        frames = sampler.gather([np.arange(4)]).observation.frames
        assert frames[:, 0, 0].is_contiguous(memory_format=torch.channels_last) or frames.movedim(3, -1).is_contiguous()


class TestRecordedActionsAlone:
    """One thing, one label a step, no boxes: what people record who have no expert and no simulator."""

    @pytest.fixture
    def data(self, tmp_path: Path) -> Dataset:
        rng = np.random.default_rng(0)
        episodes = []
        for seed, n in enumerate((5, 6, 4)):
            action = rng.uniform(-1, 1, (n, 2)).astype(np.float32)
            episodes.append(
                Episode(
                    seed=seed,
                    instructions=("fold the towel",),
                    target=0,
                    success=True,
                    pixels=rng.integers(0, 256, (n, 1, 16, 16, 3), dtype=np.uint8),
                    agent_pos=rng.normal(size=(n, 2)).astype(np.float32),
                    action=action[:, None, None],
                    executed=action,
                    events=np.array([(0, n)]),
                )
            )
        header = {
            "task": "towels",
            "cameras": ["top"],
            "action_names": ["left", "right"],
            "agent_pos_names": ["a", "b"],
            "control_hz": 30,
        }
        write_dataset(tmp_path / "towels", episodes, header)
        return open_dataset(tmp_path / "towels")

    def test_a_chunk_is_the_labels_of_successive_steps(self, data: Dataset, sampler_of: SamplerOf) -> None:
        sampler, _ = sampler_of([data], chunk=4, cameras=("top",), actions=("left", "right"))
        batch = sampler.gather([np.arange(data.steps)])
        offsets = data.arrays["offsets"]
        for episode in range(data.episodes):
            start, end = int(offsets[episode]), int(offsets[episode + 1])
            for step in range(start, end):
                mask = [step + ahead < end for ahead in range(4)]
                assert batch.action_mask[step].tolist() == mask
                inside = sum(mask)
                expected = data.arrays["executed"][step : step + inside]
                np.testing.assert_array_equal(batch.action[step, :inside].numpy(), expected)
        assert not batch.visible.any()
        assert not batch.boxes.any()
        assert batch.event.all()

    def test_any_chunk_can_be_learned(self, data: Dataset, sampler_of: SamplerOf) -> None:
        sampler, _ = sampler_of([data], chunk=30, cameras=("top",), actions=("left", "right"))
        batch = sampler.batch(np.random.default_rng(0), 8)
        assert batch.action.shape == (8, 30, 2)
        assert (batch.action_mask.sum(1) <= 6).all()


class TestHoldout:
    def test_held_out_episodes_never_train(self, write_small: WriteSmall, sampler_of: SamplerOf) -> None:
        datasets = [write_small("a", lengths=(9,) * 8), write_small("b", lengths=(7,) * 8, seed=5)]
        for data in datasets:  # every step can be told from every other
            data.arrays["agent_pos"] = np.arange(data.steps * 3, dtype=np.float32).reshape(-1, 3)
        datasets[1].arrays["agent_pos"] = datasets[1].arrays["agent_pos"] + 1000
        sampler, _ = sampler_of(datasets, holdout=0.25)
        assert sampler.held_out
        rng = np.random.default_rng(0)
        trained = {float(v) for _ in range(30) for v in sampler.batch(rng, 64).observation.agent_pos[..., 0].flatten()}
        kept = {
            float(v)
            for _ in range(30)
            for v in sampler.batch(rng, 64, held_out=True).observation.agent_pos[..., 0].flatten()
        }
        assert not trained & kept
        ids = [{float(v) for v in d.arrays["agent_pos"][:, 0]} for d in datasets]
        for all_ids, length in zip(ids, (9, 7), strict=True):
            last_two = set(sorted(all_ids)[-2 * length :])
            assert trained & all_ids == all_ids - last_two
            assert kept & all_ids == last_two

    @pytest.mark.parametrize(
        ("episodes", "holdout", "some"), [(4, 0.0, False), (4, 0.25, True), (1, 0.4, False), (2, 0.1, False)]
    )
    def test_at_least_one_episode_trains(
        self, write_small: WriteSmall, episodes: int, holdout: float, some: bool, sampler_of: SamplerOf
    ) -> None:
        sampler, _ = sampler_of([write_small(lengths=(5,) * episodes)], holdout=holdout)
        assert sampler.held_out is some
        sampler.batch(np.random.default_rng(0), 4)


class TestRelabel:
    @pytest.mark.parametrize(("relabel", "share"), [(0.0, 1.0), (0.5, 0.75), (1.0, 0.5)])
    def test_so_many_samples_read_what_the_demonstration_followed(
        self, write_small: WriteSmall, relabel: float, share: float, sampler_of: SamplerOf
    ) -> None:
        data = write_small(lengths=(9,) * 6)
        sampler, _ = sampler_of([data], relabel=relabel)
        part = sampler.parts[0]
        steps = np.random.default_rng(0).integers(data.steps, size=4000)
        drawn = sampler._draw_things(np.random.default_rng(1), part, steps)
        assert np.mean(drawn == data.arrays["targets"][part.episode[steps]]) == pytest.approx(share, abs=0.03)

    def test_what_no_words_single_out_is_never_named(self, write_small: WriteSmall, sampler_of: SamplerOf) -> None:
        sampler, _ = sampler_of([write_small()], relabel=1.0)
        batch = sampler.batch(np.random.default_rng(0), 500)
        assert batch.observation.token_mask.any(1).all()


def test_the_generator_decides_the_batch(write_small: WriteSmall, flat: Flat, sampler_of: SamplerOf) -> None:
    sampler, _ = sampler_of([write_small()])
    first, second, other = (flat(sampler.batch(np.random.default_rng(seed), 16)) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["agent_pos"], other["agent_pos"])


def test_every_training_step_can_be_drawn(write_small: WriteSmall, sampler_of: SamplerOf) -> None:
    data = write_small(lengths=(5, 6))
    data.arrays["agent_pos"] = np.arange(33, dtype=np.float32).reshape(-1, 3)
    sampler, _ = sampler_of([data])
    newest = sampler.batch(np.random.default_rng(0), 500).observation.agent_pos[:, -1, 0]
    assert set(newest.tolist()) == {3.0 * i for i in range(11)}


def test_shapes_are_those_of_the_data(write_small: WriteSmall, sampler_of: SamplerOf) -> None:
    sampler, tokenizer = sampler_of([write_small(cameras=("front", "wrist"))], cameras=("front", "wrist"))
    shapes = sampler.shapes(2, tokenizer.size)
    assert (shapes.frames, shapes.cameras, shapes.size, shapes.proprioception) == (3, 2, 32, 3)
    assert (shapes.actions, shapes.vocabulary) == (2, tokenizer.size)
