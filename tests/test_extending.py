"""Every example of docs/extending.md runs, in its order, and does what the page says."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The names that the page's examples define, with all registries put back afterwards."""
    from envs import task
    from vla_policy.encoders import ENCODERS
    from vla_policy.fusion import FUSIONS
    from vla_policy.heads import HEADS

    monkeypatch.chdir(tmp_path)
    registries = (ENCODERS, FUSIONS, HEADS, task._REGISTRY, gymnasium.registry)
    before = [(registry, set(registry)) for registry in registries]
    module = ModuleType("extending_examples")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for number, example in enumerate(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)):
        exec(compile(example, f"{PAGE.name}, example {number + 1}", "exec"), module.__dict__)
    yield module.__dict__
    for registry, names in before:
        for name in set(registry) - names:
            del registry[name]  # type: ignore[attr-defined]


def demonstrated(name: str, seeds: range, **settings: Any) -> Iterator[tuple[Any, Any]]:
    """The environment and the episode of each seed, by the task's expert without noise."""
    from configs.collect import CollectConfig
    from envs.contract import check_contract
    from envs.task import find_task, make_task
    from training.collect import Demonstrator

    config = CollectConfig(noise=0.0, detours=0.0, **settings)
    env, spec = make_task(name, cameras=config.cameras, size=config.size), find_task(name)
    check_contract(env, spec, config.cameras, config.size)
    demonstrator = Demonstrator(env, spec, config)
    for seed in seeds:
        episode = demonstrator.demonstrate(seed)
        assert episode is not None
        assert episode.success
        yield env.unwrapped, episode
    env.close()


def test_the_examples_do_what_the_page_says(page: dict[str, Any]) -> None:
    assert torch.isfinite(page["loss"])
    assert page["actions"].shape == (2, page["config"].head.chunk, 2)
    assert all(p.grad is not None for p in page["policy"].parameters())
    assert page["data"].episodes == 4
    assert page["data"].texts == ["close the drawer"] * 4
    assert not page["data"].labelled

    for env, episode in demonstrated("leftmost", range(4), size=16):
        ends = env.layout.paths[:, 0, 1]
        chosen = ends.argmin() if "leftmost" in env.instruction else ends.argmax()
        assert env.layout.target == chosen
        x = episode.boxes[0, 0, :3, 0]  # perspective moves things a little, so only the side is compared
        assert (x[chosen] < x.mean()) == ("leftmost" in env.instruction)
    for env, episode in demonstrated("dot", range(4), cameras=("top",), size=32):
        assert episode.instructions == (env.task_description,)
        assert episode.action.shape == (len(episode), 1, 1, 2)
        assert np.unique(np.abs(episode.executed)).tolist() == [0.0, 1.0]  # of bounds of 2


def test_the_recording_trains(page: dict[str, Any], tmp_path: Path) -> None:
    from vla_policy.cli import main

    small = "--train.steps=2 --train.batch=4 --train.threads=1 --train.warmup=0 --policy.cameras=head"
    assert main(["train", "--data", "data/mine", "--out", "runs/mine", *small.split()]) == 0
    assert (tmp_path / "runs" / "mine" / "checkpoint" / "COMPLETE").is_file()
