"""A policy computes in the type of its parameters, and says nearly the same in each of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.policy import GroundingConfig, PolicyConfig
from vla_policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vla_policy.contract import Shapes, fake_batch
from vla_policy.encoders import ENCODERS
from vla_policy.fusion import FUSIONS
from vla_policy.heads import HEADS
from vla_policy.language import LANGUAGES
from vla_policy.layers import SHORT, FusedSelfAttentionBlock
from vla_policy.normaliser import Normaliser
from vla_policy.policy import VLAPolicy

MakePolicy = Callable[..., VLAPolicy]
AsCheckpoint = Callable[[VLAPolicy], Checkpoint]
CHUNK = 2
GROUNDING = GroundingConfig(interval_weight=1.0, visibility_weight=1.0, attention_weight=1.0)
PARTS: dict[str, dict[str, Any]] = {
    **{f"encoder={name}": {"encoder": name} for name in ENCODERS},
    **{f"fusion={name}": {"fusion": name} for name in FUSIONS if name != "none"},
    **{f"head={name}": {"head": name} for name in HEADS},
    **{f"language={name}": {"language": name} for name in LANGUAGES},
    "fusion=none": {"encoder": "slow_fast", "fusion": "none"},
    "fast=transformer": {"encoder": "slow_fast", "options": {"encoder": {"fast": "transformer"}}},
    "attention=joint": {"encoder": "space_time_attention", "options": {"encoder": {"attention": "joint"}}},
}
CLOSE = {torch.float64: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.1}


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_every_part_works_in_every_type(
    parts: dict[str, Any], dtype: torch.dtype, make_policy: MakePolicy, shapes: Shapes
) -> None:
    policy = make_policy(**parts, grounding=GROUNDING).eval()
    batch = fake_batch(shapes, CHUNK)
    torch.manual_seed(0)
    before, expected = policy.act(batch.observation), policy.loss(batch)[0].item()
    policy = policy.to(dtype)
    torch.manual_seed(0)
    loss, metrics = policy.loss(batch)
    loss.backward()
    chunk = policy.act(batch.observation)
    wide = torch.promote_types(dtype, torch.float32)
    assert loss.dtype == chunk.action.dtype == wide
    assert all(p.grad is not None and p.grad.dtype == dtype for p in policy.parameters() if p.requires_grad)
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters() if p.grad is not None)
    assert all(torch.isfinite(value) for value in metrics.values())
    aux = chunk.aux
    assert all(value.dtype == wide for value in (aux.boxes, aux.location, aux.visible, aux.during) if value is not None)
    assert all(weights.dtype == wide for weights in aux.attention.values())
    assert loss.item() == pytest.approx(expected, rel=CLOSE[dtype], abs=CLOSE[dtype])
    assert (chunk.action - before.action).abs().max() < CLOSE[dtype]


def test_statistics_of_the_data_keep_their_precision() -> None:
    normaliser = Normaliser(2)
    mean, std = torch.tensor([5.001, 100.03]), torch.tensor([0.0123, 1.0])
    normaliser.set_statistics(mean, std)
    x = torch.tensor([[5.02, 99.5]])
    expected = normaliser(x)
    for convert in (normaliser.bfloat16, normaliser.half, normaliser.double, normaliser.float):
        assert torch.equal(convert()(x), expected)
    assert normaliser.to("meta").mean.device.type == "meta"


def test_a_checkpoint_of_a_converted_policy_loads(
    make_policy: MakePolicy, as_checkpoint: AsCheckpoint, tmp_path: Path
) -> None:
    policy = make_policy(head="binned").bfloat16().eval()
    save_checkpoint(as_checkpoint(policy), tmp_path / "saved")
    loaded = load_checkpoint(tmp_path / "saved").policy
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    first, second = loaded.state_dict(), policy.state_dict()
    assert all(torch.equal(value, second[name].to(value.dtype)) for name, value in first.items())


@pytest.mark.parametrize("tokens", [SHORT, SHORT + 1])
def test_attention_of_short_and_long_sequences_works_under_autocast(tokens: int) -> None:
    torch.manual_seed(0)
    block, x = FusedSelfAttentionBlock(16, 2), torch.randn(2, tokens, 16)
    exact = block(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = block(x)
    torch.testing.assert_close(rough.float(), exact, atol=0.05, rtol=0.05)


def test_the_default_policy_works_in_bfloat16() -> None:
    shapes = Shapes(frames=6, cameras=1, size=64, proprioception=12, actions=3, vocabulary=76)
    torch.manual_seed(0)
    policy = VLAPolicy(PolicyConfig(), shapes)
    policy.normaliser.set_statistics(torch.zeros(12), torch.ones(12))
    observation = fake_batch(shapes, 4).observation
    expected = policy.eval().act(observation).action
    assert (policy.bfloat16().act(observation).action - expected).abs().max() < 0.05
