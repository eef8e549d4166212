"""Samples of several datasets: one space of actions, shares by task, statistics, and what cannot go together."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from training.data.batches import SampleConfig, Sampler
from training.data.episodes import Dataset
from vla_policy.contract import Batch
from vla_policy.tokenizer import WordTokenizer

WriteSmall = Callable[..., Dataset]
Flat = Callable[[Batch], dict[str, Tensor]]
SamplerOf = Callable[..., tuple[Sampler, WordTokenizer]]
OneByOne = Callable[..., dict[str, np.ndarray]]


def test_actions_share_one_space(
    write_small: WriteSmall, flat: Flat, sampler_of: SamplerOf, one_by_one: OneByOne
) -> None:
    planar = write_small("planar", actions=("dx", "dy"))
    full = write_small("full", actions=("dx", "dz", "gripper"), seed=1, task="reach")
    names = ("dx", "dy", "dz", "gripper")
    sampler, tokenizer = sampler_of([planar, full], actions=names)
    steps = [np.arange(planar.steps), np.arange(full.steps)]
    batch = flat(sampler.gather(steps))
    at = 0
    for data, chosen in zip((planar, full), steps, strict=True):
        for step in chosen:
            expected = one_by_one(data, tokenizer, sampler.config, names, int(step))
            for name, value in expected.items():
                got = batch[name][at].numpy()
                if name in ("tokens", "token_mask"):
                    value = value[: len(got)]
                np.testing.assert_array_equal(got, value, err_msg=f"{data.path.name} {name}")
            at += 1


def test_tasks_count_alike_however_long_they_are(write_small: WriteSmall, sampler_of: SamplerOf) -> None:
    short = write_small("short", lengths=(5, 5))
    long = write_small("long", lengths=(40, 40), actions=("dz", "dx"), task="reach")
    sampler, _ = sampler_of([short, long], actions=("dx", "dy", "dz"))
    batch = sampler.batch(np.random.default_rng(0), 2000)
    from_long = (batch.action[..., 2] != 0).any(1).sum()  # only the long one has dz
    assert 900 < int(from_long) < 1100


def test_tasks_may_count_otherwise(write_small: WriteSmall, flat: Flat, sampler_of: SamplerOf) -> None:
    parts = [
        write_small("one", lengths=(9, 9)),
        write_small("other", lengths=(9, 9), actions=("dz", "dx"), task="reach"),
    ]
    names = ["dx", "dy", "dz"]
    alike, tokenizer = sampler_of(parts, actions=tuple(names), holdout=0.5)
    task = str(parts[0].header["task"])
    sampler = Sampler(parts, alike.config, tokenizer, names, holdout=0.5, weights={task: 1.0, "reach": 9.0})
    batch = sampler.batch(np.random.default_rng(0), 2000)
    assert int((batch.action[..., 2] != 0).any(1).sum()) == pytest.approx(1800, abs=60)
    judged = [each.batch(np.random.default_rng(0), 50, held_out=True) for each in (alike, sampler)]
    assert all(torch.equal(value, flat(judged[1])[name]) for name, value in flat(judged[0]).items())


def test_datasets_of_one_task_share_its_weight_by_their_steps(write_small: WriteSmall, sampler_of: SamplerOf) -> None:
    parts = [
        write_small("first", lengths=(30, 30)),
        write_small("other", lengths=(9, 9), task="reach"),
        write_small("round", lengths=(10, 10)),
    ]
    for number, data in enumerate(parts):
        data.arrays["agent_pos"] = np.full((data.steps, 3), number, np.float32)
    sampler, _ = sampler_of(parts, holdout=0.5)
    rng = np.random.default_rng(0)
    for held_out in (False, True):
        drawn = sampler.batch(rng, 4000, held_out=held_out).observation.agent_pos[:, -1, 0]
        shares = [float((drawn == number).float().mean()) for number in range(3)]
        assert shares == pytest.approx([0.375, 0.5, 0.125], abs=0.03)


def test_of_datasets_of_one_task_every_step_can_be_drawn(write_small: WriteSmall, sampler_of: SamplerOf) -> None:
    parts = [write_small("a", lengths=(5, 6)), write_small("b", lengths=(4, 4))]
    for start, data in zip((0, 11), parts, strict=True):
        data.arrays["agent_pos"] = start + np.arange(data.steps, dtype=np.float32)[:, None].repeat(3, 1)
    newest = sampler_of(parts)[0].batch(np.random.default_rng(0), 900).observation.agent_pos[:, -1, 0]
    assert set(newest.tolist()) == set(map(float, range(19)))


def test_a_round_too_small_to_hold_anything_out_leaves_validation_to_the_others(
    write_small: WriteSmall, sampler_of: SamplerOf
) -> None:
    parts = [write_small("a", lengths=(5,) * 8), write_small("b", lengths=(5,))]
    sampler, _ = sampler_of(parts, holdout=0.25)
    assert sampler.held_out
    sampler.batch(np.random.default_rng(0), 20, held_out=True)


def test_statistics_count_tasks_alike(write_small: WriteSmall, sampler_of: SamplerOf) -> None:
    parts = [write_small("a", lengths=(5,)), write_small("b", lengths=(50,), seed=3, task="reach")]
    mean, std = sampler_of(parts)[0].statistics()
    each = [p.arrays["agent_pos"].astype(np.float64) for p in parts]
    expected = np.mean([a.mean(0) for a in each], axis=0)
    spread = np.sqrt(np.mean([((a - expected) ** 2).mean(0) for a in each], axis=0))
    np.testing.assert_allclose(mean, expected, rtol=1e-5)
    np.testing.assert_allclose(std, spread, rtol=1e-3, atol=1e-4)


def test_pictures_of_different_sizes_are_refused(write_small: WriteSmall, sampler_of: SamplerOf) -> None:
    with pytest.raises(
        ValueError, match=r"b: pictures of 48 x 48 pixels; all must be square and as large as those of .*a, 32$"
    ):
        sampler_of([write_small("a"), write_small("b", size=48)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"agent_pos_names": ["a", "c", "b"]},
            r"agent_pos_names of .*(one|unknown) and .*two differ, first 'b' and 'c'; both",
        ),
        (
            {"agent_pos_names": ["c", "b", "a"]},
            r"agent_pos_names of .*(one|unknown) and .*two differ, first 'a' and 'c'; both",
        ),
        ({"control_hz": 50}, r"control_hz of .*one is 20, of .*two 50; one policy decides at one rate"),
    ],
)
def test_another_robot_is_refused(
    write_small: WriteSmall, change: dict[str, Any], words: str, sampler_of: SamplerOf
) -> None:
    names = {"agent_pos_names": ["a", "b", "c"]}
    one, two = write_small("one", **names), write_small("two", **{**names, **change})
    with pytest.raises(ValueError, match=words):
        sampler_of([one, two])
    unknown = write_small("unknown", **{**names, "control_hz": None})
    sampler_of([unknown, one])
    with pytest.raises(ValueError, match=words):
        sampler_of([unknown, one, two])


def test_a_camera_that_was_not_recorded_is_named(write_small: WriteSmall, sampler_of: SamplerOf) -> None:
    with pytest.raises(ValueError, match="camera 'wrist' was not recorded, only front"):
        sampler_of([write_small()], cameras=("front", "wrist"))


def test_no_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match="no dataset given"):
        Sampler(
            [],
            SampleConfig(ages=(0,), chunk=1, cameras=("front",)),
            WordTokenizer.train(["a"], 2),
            [],
        )
