"""The cost of a decision: counted by hand for a network whose operations are known."""

from __future__ import annotations

from dataclasses import replace

import torch

from configs.policy import PolicyConfig
from eval.cost import WORDS, measure_cost
from vla_policy.contract import Shapes, fake_batch
from vla_policy.policy import VLAPolicy

SHAPES = Shapes(frames=6, cameras=1, size=64, proprioception=12, actions=2, vocabulary=40)


def built(config: PolicyConfig) -> VLAPolicy:
    policy = VLAPolicy(config, SHAPES)
    policy.normaliser.set_statistics(torch.zeros(12), torch.ones(12))
    return policy


def convolutions(policy: VLAPolicy) -> int:
    """Multiplications and additions of the convolutions and linear layers alone, from the shapes that pass them."""
    counted = 0

    def count(module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal counted
        if isinstance(module, torch.nn.Conv2d):
            b, c, h, w = output.shape
            counted += 2 * b * c * h * w * module.weight[0].numel()
        elif isinstance(module, torch.nn.Linear):
            counted += 2 * output.numel() * module.in_features

    hooks = [m.register_forward_hook(count) for m in policy.modules()]
    policy.eval().act(fake_batch(policy.shapes, policy.config.head.chunk, batch=1, words=WORDS).observation)
    for hook in hooks:
        hook.remove()
    return counted


def test_what_is_counted() -> None:
    policy = built(PolicyConfig())
    threads = torch.get_num_threads()
    cost = measure_cost(policy, calls=5)
    assert torch.get_num_threads() == threads
    assert cost.parameters == sum(p.numel() for p in policy.parameters()) == cost.trained
    # Attention's products come on top: they are no layer's.
    layers = convolutions(policy)
    assert layers < cost.flops < 1.5 * layers
    assert 0 < cost.latency_p50_ms <= cost.latency_p99_ms


def test_frozen_parameters_are_told_apart_and_more_work_costs_more() -> None:
    small, large = PolicyConfig(), PolicyConfig()
    large = replace(large, encoder=replace(large.encoder, backbone=replace(large.encoder.backbone, layers=4)))
    policy = built(large)
    for parameter in policy.language.parameters():
        parameter.requires_grad_(False)
    cost = measure_cost(policy, calls=3)
    assert cost.trained == cost.parameters - sum(p.numel() for p in policy.language.parameters())
    assert cost.flops > measure_cost(built(small), calls=3).flops
