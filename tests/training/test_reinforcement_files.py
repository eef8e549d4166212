"""Files of learning by reinforcement that somebody damaged, or made to do harm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from envs.task import find_task
from training.error import TrainingError
from training.reinforcement.expert import ExpertError, load_expert
from training.reinforcement.judgements import Judgements

GOOD = {"step": 1, "successes": 40, "episodes": 50}


@pytest.mark.parametrize("line", ["[1]", '{"step": 1}', '{"step": 1, "successes": "x", "episodes": 1}', "{", "\ud7ff{"])
def test_judgements_that_are_damaged_are_not_forgotten(tmp_path: Path, line: str) -> None:
    """The best policy so far would else be replaced by the next one that is judged."""
    judgements, kept = Judgements(tmp_path, resume=True), []
    assert judgements.rows == []
    judgements.add(GOOD, lambda: kept.append(GOOD), ties=False)
    assert kept == [GOOD]
    judgements.add(GOOD, lambda: kept.append(GOOD), ties=False)
    assert kept == [GOOD]
    assert Judgements(tmp_path, resume=True).rows == [GOOD, GOOD]
    (tmp_path / "log.jsonl").write_text(json.dumps(GOOD) + "\n" + line)
    with pytest.raises(TrainingError, match=r"log\.jsonl: damaged"):
        Judgements(tmp_path, resume=True)


@pytest.mark.parametrize(
    ("widths", "shape", "message"),
    [
        ([4, 3], (1,), r"0.weight is \(1,\), expected \(3, 4\)"),
        ([10_000] * 500, (3, 4), r"0.weight is \(3, 4\), expected \(10000, 10000\)"),
    ],
)
def test_an_expert_s_weights_have_the_shapes_of_its_widths(
    tmp_path: Path, widths: list[int], shape: tuple[int, ...], message: str
) -> None:
    """One number would else stand for all, and a network be made that no machine holds."""
    save_file({"0.weight": torch.ones(shape), "0.bias": torch.ones(3)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"task": "push", "widths": widths}))
    with pytest.raises(ExpertError, match=message):
        load_expert(str(tmp_path), find_task("push"))
