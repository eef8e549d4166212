"""Fusions of vision and language: `VisualTokens` + `LanguageTokens` → `FusedTokens`. One file each."""

from __future__ import annotations

from vla_policy.fusion.bidirectional import BidirectionalFusion

FUSIONS: dict[str, type[BidirectionalFusion]] = {"bidirectional": BidirectionalFusion}
