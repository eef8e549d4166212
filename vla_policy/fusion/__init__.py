"""Fusions of vision and language: `VisualTokens`, `LanguageTokens` → `FusedTokens`. One file each.

Built as `(config, setup)`: the fusion's own settings, None if it has none, and what all fusions are built with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vla_policy.exchange import Fusion, FusionSetup
from vla_policy.fusion.bidirectional import BidirectionalFusion
from vla_policy.fusion.concat import ConcatFusion
from vla_policy.fusion.cross_attention import CrossAttentionFusion
from vla_policy.fusion.intermediate import IntermediateFusion
from vla_policy.fusion.none import NoFusion
from vla_policy.fusion.self_attention import SelfAttentionFusion
from vla_policy.fusion.vote import VoteFusion
from vla_policy.fusion.weighted import WeightedFusion

FUSIONS: dict[str, Callable[[Any, FusionSetup], Fusion]] = {
    "bidirectional": BidirectionalFusion,
    "cross_attention": CrossAttentionFusion,
    "self_attention": SelfAttentionFusion,
    "intermediate": IntermediateFusion,
    "concat": ConcatFusion,
    "weighted": WeightedFusion,
    "vote": VoteFusion,
    "none": NoFusion,
}
