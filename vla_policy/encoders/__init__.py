"""Spatio-temporal encoders: frames `(B, T, V, C, H, W)` uint8 → `VisualTokens`. One file each."""

from __future__ import annotations

from vla_policy.encoders.two_stream import TwoStreamEncoder

ENCODERS: dict[str, type[TwoStreamEncoder]] = {"two_stream": TwoStreamEncoder}
