"""Action heads: features `(B, F)` → a chunk of actions `(B, S, A)`. One file each; `vla_policy.decision.ActionHead`
says what they do. Built as `(config, feature_width, actions)`.
"""

from __future__ import annotations

from vla_policy.decision import ActionHead
from vla_policy.heads.binned import BinnedHead
from vla_policy.heads.chunk_l1 import ChunkL1Head
from vla_policy.heads.flow_matching import FlowMatchingHead
from vla_policy.heads.gaussian_mixture import GaussianMixtureHead

HEADS: dict[str, type[ActionHead]] = {
    "chunk_l1": ChunkL1Head,
    "gaussian_mixture": GaussianMixtureHead,
    "binned": BinnedHead,
    "flow_matching": FlowMatchingHead,
}
