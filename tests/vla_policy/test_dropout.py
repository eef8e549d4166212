"""What a policy does not see of some samples while it trains: the frames before the newest, or its proprioception."""

from collections.abc import Callable

import torch

from vla_policy.contract import Batch, Shapes, fake_batch
from vla_policy.policy import VLAPolicy

MakePolicy = Callable[..., VLAPolicy]


def test_history_dropout_hides_all_frames_but_the_newest(make_policy: MakePolicy, batch: Batch) -> None:
    policy = make_policy(history_dropout=0.999)
    torch.manual_seed(0)
    seen = batch.observation
    hidden, _ = policy._drop(seen.frames, seen.agent_pos[:, -1])
    assert torch.equal(hidden, seen.frames[:, -1:].expand_as(seen.frames))


def test_proprioception_dropout_shows_the_mean_in_its_place(make_policy: MakePolicy, batch: Batch) -> None:
    policy = make_policy(proprioception_dropout=0.999)
    torch.manual_seed(0)
    seen = batch.observation
    frames, hidden = policy._drop(seen.frames, policy.normaliser(seen.agent_pos[:, -1]))
    assert (hidden == 0).all()
    assert torch.equal(frames, seen.frames)


def test_some_samples_are_hit_and_some_are_not(make_policy: MakePolicy, shapes: Shapes) -> None:
    policy = make_policy(history_dropout=0.5, proprioception_dropout=0.5)
    seen = fake_batch(shapes, 2, batch=200).observation
    frames, agent_pos = policy._drop(seen.frames, seen.agent_pos[:, -1])
    untouched = (frames == seen.frames).flatten(1).all(1).sum(), (agent_pos != 0).all(1).sum()
    assert all(60 < int(n) < 140 for n in untouched)


def test_it_ends_with_training(make_policy: MakePolicy, batch: Batch) -> None:
    policy = make_policy(history_dropout=0.5, proprioception_dropout=0.5)
    assert policy.loss(batch)[0] != policy.loss(batch)[0]
    policy.eval()
    assert policy.loss(batch)[0] == policy.loss(batch)[0]
