"""Samplers of small datasets, and single samples to hold theirs against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from training.data.batches import SampleConfig, Sampler
from training.data.episodes import Dataset
from vla_policy.tokenizer import WordTokenizer


@pytest.fixture
def sampler_of() -> Callable[..., tuple[Sampler, WordTokenizer]]:
    """Makes a sampler of datasets, and the tokenizer of their texts."""

    def make(
        datasets: list[Dataset],
        *,
        ages: tuple[int, ...] = (4, 2, 0),
        chunk: int = 4,
        cameras: tuple[str, ...] = ("front",),
        actions: tuple[str, ...] = ("dx", "dy"),
        holdout: float = 0.0,
        relabel: float = 0.0,
        tubes: tuple[tuple[str, str], ...] = (),
    ) -> tuple[Sampler, WordTokenizer]:
        tokenizer = WordTokenizer.train([text for d in datasets for text in d.texts], 8)
        samples = SampleConfig(ages=ages, chunk=chunk, cameras=cameras, tubes=tubes)
        return Sampler(datasets, samples, tokenizer, list(actions), holdout=holdout, relabel=relabel), tokenizer

    return make


@pytest.fixture
def one_by_one() -> Callable[..., dict[str, np.ndarray]]:
    """Puts one sample together in the plainest way."""

    def sample(
        data: Dataset,
        tokenizer: WordTokenizer,
        config: SampleConfig,
        actions: tuple[str, ...],
        step: int,
        named: int | None = None,
    ) -> dict[str, np.ndarray]:
        arrays, header = data.arrays, data.header
        offsets = arrays["offsets"].tolist()
        episode = max(e for e in range(len(offsets) - 1) if offsets[e] <= step)
        start, end = offsets[episode], offsets[episode + 1]
        named = arrays["targets"][episode] if named is None else named
        cameras = [header["cameras"].index(name) for name in config.cameras]
        seen: dict[str, list[Any]] = {name: [] for name in ("frames", "agent_pos", "boxes", "visible", "event")}
        for age in config.ages:
            row = max(step - age, start)
            seen["frames"].append([arrays["pixels"][row, c].transpose(2, 0, 1) for c in cameras])
            seen["agent_pos"].append(arrays["agent_pos"][row])
            seen["boxes"].append(arrays["boxes"][row, cameras[0], named])
            seen["visible"].append(arrays["visible"][row, cameras[0], named])
            first, last = arrays["events"][episode, named]
            seen["event"].append(first <= row - start < last)
        action, mask = [], []
        for s in range(config.chunk):
            recorded = dict(zip(header["action_names"], arrays["action"][step, named, s], strict=True))
            action.append([recorded.get(name, 0.0) for name in actions])
            mask.append(step + s < end)
        ids, token_mask = tokenizer.encode([data.header["instructions"][episode][named]])
        return {
            **{name: np.array(values) for name, values in seen.items()},
            "action": np.array(action, dtype=np.float32),
            "action_mask": np.array(mask),
            "tokens": ids[0],
            "token_mask": token_mask[0],
        }

    return sample
