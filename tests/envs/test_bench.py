"""The benchmark measures what it says."""

from __future__ import annotations

import pytest

from envs.bench import collection_ratio
from envs.collect import CollectConfig


def test_collection_ratio() -> None:
    result = collection_ratio(0.0, "reach", CollectConfig(size=32))
    assert result["task"] == "reach"
    assert result["cameras"] == ["front"]
    assert result["steps"] > 50
    assert 0 < result["kept_share"] <= 1
    assert result["ratio"] == pytest.approx(result["collection_steps_per_second"] / result["raw_steps_per_second"])
    # No claim about this machine, only that neither side is left out: collection cannot be much faster than its parts.
    assert 0.1 < result["ratio"] < 1.5
