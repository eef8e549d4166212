"""Action heads: features `(B, F)` → a chunk of actions `(B, S, A)`. One file each; `vla_policy.decision.ActionHead`
says what they do. Built as `(config, setup)`: the head's own settings, None if it has none, and what all heads are
built with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vla_policy.decision import ActionHead, HeadSetup
from vla_policy.heads.binned import BinnedHead
from vla_policy.heads.chunk_l1 import ChunkL1Head
from vla_policy.heads.flow_matching import FlowMatchingHead
from vla_policy.heads.gaussian_mixture import GaussianMixtureHead
from vla_policy.heads.none import NoHead

HEADS: dict[str, Callable[[Any, HeadSetup], ActionHead]] = {
    "chunk_l1": ChunkL1Head,
    "gaussian_mixture": GaussianMixtureHead,
    "binned": BinnedHead,
    "flow_matching": FlowMatchingHead,
    "none": NoHead,
}
