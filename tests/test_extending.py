"""Every example of docs/extending.md runs, in its order, and does what the page says."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The names that the page's examples define, with all registries put back afterwards."""
    from envs.tabletop.plans import EXPERTS
    from envs.task import TASK_IDS
    from vla_policy.encoders import ENCODERS
    from vla_policy.fusion import FUSIONS
    from vla_policy.heads import HEADS

    monkeypatch.chdir(tmp_path)
    before = [(registry, set(registry)) for registry in (ENCODERS, FUSIONS, HEADS, TASK_IDS, EXPERTS)]
    module = ModuleType("extending_examples")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for number, example in enumerate(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)):
        exec(compile(example, f"{PAGE.name}, example {number + 1}", "exec"), module.__dict__)
    yield module.__dict__
    for registry, names in before:
        for name in set(registry) - names:
            del registry[name]  # type: ignore[attr-defined]


def test_the_examples_do_what_the_page_says(page: dict[str, Any], tmp_path: Path) -> None:
    assert torch.isfinite(page["loss"])
    assert page["actions"].shape == (2, page["config"].head.chunk, 2)
    assert all(p.grad is not None for p in page["policy"].parameters())
    assert page["data"].episodes == 4
    assert page["data"].texts == ["follow the red ball"] * 4

    from envs.task import make_task
    from training.collect import run_expert

    env = make_task("leftmost", cameras=("front",), size=16)
    for seed in range(4):
        episode = run_expert(env, seed, 0.0, 0.0)
        assert episode is not None
        assert episode.success
        ends = env.layout.paths[:, 0, 1]
        chosen = ends.argmin() if "leftmost" in env.instruction else ends.argmax()
        assert env.layout.target == chosen
        x = episode.boxes[0, 0, :3, 0]  # perspective moves things a little, so only the side is compared
        assert (x[chosen] < x.mean()) == ("leftmost" in env.instruction)
    env.close()
