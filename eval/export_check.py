"""Holds an export against its policy: the same recorded observations through both, one after the other, and what each
of them takes for it.

The observations are those of decisions in the course of episodes, so that what a graph keeps from one decision for the
next is the graph's own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad

from configs.interface import check_same_robot
from training.data.batches import SampleConfig, Sampler
from training.data.episodes import Dataset
from training.provenance import fingerprint
from vla_policy.checkpoint import Checkpoint
from vla_policy.contract import ActionChunk, Observation
from vla_policy.export.folder import open_graphs
from vla_policy.export.formats import Arrays, Run

TOLERANCE = 1e-4
TOGETHER = 8  # observations that go through the window's graph as one batch, too
WARM_UP = 5  # decisions whose time does not count


@dataclass(kw_only=True)
class Comparison:
    """Of one graph: the largest difference by output, and the seconds that each decision took."""

    run: Run
    differences: dict[str, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def decide(self, inputs: Arrays, expected: Arrays) -> Arrays:
        started = time.perf_counter()
        got = self.run(inputs)
        self.seconds.append(time.perf_counter() - started)
        self.compare(got, expected)
        return got

    def compare(self, got: Arrays, expected: Arrays) -> None:
        for name, value in expected.items():
            difference = float(np.abs(got[name] - value).max())
            # A maximum would pass over what is no number.
            self.differences[name] = max(self.differences.get(name, 0.0), difference if difference >= 0 else math.inf)


def check_fit(checkpoint: Checkpoint, data: Dataset) -> None:
    """Refuse a dataset that the policy could not have learned from.

    Raises:
        ValueError: it is of another robot, or its pictures have another size.
    """
    check_same_robot(checkpoint.interface, data.interface, ("the policy", str(data.path)))
    for name in data.interface.action_names:
        if name not in checkpoint.purpose.action_names:
            raise ValueError(
                f"{data.path}: has action {name!r}, which the policy does not give; choose another dataset"
            )
    got, expected = data.arrays["pixels"].shape[2], checkpoint.policy.shapes.size
    if got != expected:
        raise ValueError(f"{data.path}: pictures of {got} pixels, the policy sees {expected}; choose another dataset")


def check_export(
    checkpoint: Checkpoint,
    folder: Path,
    datasets: Sequence[Dataset],
    samples: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Compare on so many observations, or on as many as there are, and say how long a decision takes each, of the
    policy and of the graphs on as many threads as PyTorch has now.

    Args:
        folder: of the export.
        datasets: that `check_fit` lets through.
    """
    threads = torch.get_num_threads()
    described, runs = open_graphs(folder, threads)
    frames, ages = described["frames"], described["frame_ages"]
    graphs = {name: Comparison(run=run) for name, run in runs.items()}
    own: list[float] = []
    kept: dict[int, np.ndarray] = {}  # features by the episode's step
    group: list[tuple[Arrays, Arrays]] = []
    # What a stream keeps of a frame must be there when it has become an earlier one.
    every = math.gcd(described["execute"], *ages) if "stream" in graphs else 1
    for done, (step, seen) in enumerate(_decisions(checkpoint, datasets, samples, every), start=1):
        started = time.perf_counter()
        chunk = checkpoint.policy.act(seen)
        own.append(time.perf_counter() - started)
        expected = _answer(chunk, checkpoint, described)
        pictures, others = _inputs(seen, frames)
        inputs = {"frames": pictures, **others}
        graphs["window"].decide(inputs, expected)
        group.append((inputs, expected))
        if len(group) == TOGETHER:
            several, answers = (_joined(part) for part in zip(*group, strict=True))
            graphs["window"].compare(runs["window"](several), answers)
            group.clear()
        if "stream" in graphs:
            shape = described["graphs"]["stream"]["inputs"]["earlier"]["shape"][1:]
            earlier = np.zeros((1, *shape), np.float32)
            if step:
                earlier[0] = [kept[max(step - age, 0)] for age in ages[:-1]]
            inputs = {"frame": pictures[:, -1], "begins": np.array([step == 0]), "earlier": earlier, **others}
            kept[step] = graphs["stream"].decide(inputs, expected)["features"][0]
        on_progress(done, samples)
    return {
        "datasets": [{"task": d.header["task"], "fingerprint": fingerprint(d)} for d in datasets],
        "observations": len(own),
        "tolerance": TOLERANCE,
        "threads": threads,
        "policy": {"milliseconds": _milliseconds(own)},
        "graphs": {
            name: {
                "largest_difference": one.differences,
                "milliseconds": _milliseconds(one.seconds),
                "rate_over_policy": round(_milliseconds(own) / _milliseconds(one.seconds), 2),
            }
            for name, one in graphs.items()
        },
    }


def largest_difference(results: Mapping[str, Any]) -> float:
    """Of all outputs of all graphs, in the results of `check_export`."""
    return max(value for graph in results["graphs"].values() for value in graph["largest_difference"].values())


def _decisions(
    checkpoint: Checkpoint, datasets: Sequence[Dataset], samples: int, every: int
) -> Iterator[tuple[int, Observation]]:
    """The first decisions of every episode, as many of each: the episode's step, and what the policy sees."""
    config = checkpoint.policy.config
    cut = SampleConfig(ages=config.ages, chunk=1, cameras=config.cameras)
    sampler = Sampler(datasets, cut, checkpoint.tokenizer, list(checkpoint.purpose.action_names))
    courses = [
        (number, np.arange(start, end, every))
        for number, data in enumerate(datasets)
        for start, end in pairwise(data.arrays["offsets"])
    ]
    lengths = [len(steps) for _, steps in courses]
    each = next((n for n in range(1, max(lengths)) if sum(min(n, m) for m in lengths) >= samples), max(lengths))
    left = samples
    for number, steps in courses:
        chosen = steps[: min(each, left)]
        left -= len(chosen)
        for step in chosen:
            rows = [np.array([step] if i == number else [], np.int64) for i in range(len(datasets))]
            yield int(step - steps[0]), _filled(sampler.gather(rows).observation, config.language.max_words)


def _filled(seen: Observation, words: int) -> Observation:
    """With as many text tokens as the graphs take."""
    fill = (0, words - seen.tokens.shape[1])
    return Observation(
        frames=seen.frames,
        agent_pos=seen.agent_pos,
        tokens=pad(seen.tokens, fill),
        token_mask=pad(seen.token_mask, fill),
    )


def _inputs(seen: Observation, frames: int) -> tuple[np.ndarray, Arrays]:
    """Pictures (1, T, V, H, W, 3), and what else every graph takes."""
    pictures = seen.frames[:, -frames:].movedim(3, -1).contiguous().numpy()
    felt, tokens, mask = seen.agent_pos[:, -1], seen.tokens, seen.token_mask
    return pictures, {"agent_pos": felt.numpy(), "tokens": tokens.numpy(), "token_mask": mask.numpy()}


def _joined(rows: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _answer(chunk: ActionChunk, checkpoint: Checkpoint, described: Mapping[str, Any]) -> Arrays:
    """What the policy itself says, in the units of the export."""
    names = checkpoint.purpose.action_names
    unit = chunk.action[..., [names.index(name) for name in described["action_names"]]].numpy()
    low, high = np.array(described["action_low"]), np.array(described["action_high"])
    answer = {"actions": low + (high - low) * (unit + 1) / 2}
    for name in described["graphs"]["window"]["outputs"]:
        if name != "actions":
            answer[name] = getattr(chunk.aux, name).numpy()
    return answer


def _milliseconds(seconds: Sequence[float]) -> float:
    """The median."""
    return round(1e3 * float(np.median(seconds[WARM_UP:] or seconds)), 3)
