"""What a policy costs: parameters, operations and latency of one decision.

Operations are what matrix products, attention and convolutions multiply and add (two per pair), counted by torch's own
counter while the policy acts; element-wise work is not in it. Latency is measured with one episode a batch, which is
what a robot has, on one thread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from eval.acting import seconds_per_call
from vla_policy.contract import fake_batch
from vla_policy.policy import VLAPolicy

WORDS = 8


@dataclass(frozen=True, kw_only=True)
class Cost:
    """parameters: trained and frozen. trained: those that training changes. flops: of one decision. latency_p50_ms,
    latency_p99_ms: milliseconds of one decision; the slowest of a hundred is what a control loop has to allow for.
    """

    parameters: int
    trained: int
    flops: int
    latency_p50_ms: float
    latency_p99_ms: float


def measure_cost(policy: VLAPolicy, *, calls: int = 200) -> Cost:
    """Measure on this machine; puts the policy into evaluation mode."""
    observation = fake_batch(policy.shapes, policy.config.head.chunk, batch=1, words=WORDS).observation
    policy.eval()
    counter = FlopCounterMode(display=False)
    with counter:
        policy.act(observation)
    times = seconds_per_call(lambda: policy.act(observation), calls=calls)
    p50, p99 = 1e3 * np.percentile(times, [50, 99])
    return Cost(
        parameters=sum(p.numel() for p in policy.parameters()),
        trained=sum(p.numel() for p in policy.parameters() if p.requires_grad),
        flops=counter.get_total_flops(),
        latency_p50_ms=float(p50),
        latency_p99_ms=float(p99),
    )
