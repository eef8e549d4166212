"""The folder that LeRobot loads: its own description, the weights under its names, and the checkpoint inside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eval.lerobot_plugin.folder import INSIDE, main
from vla_policy.checkpoint import DEFAULT_POLICY, load_checkpoint


def test_what_is_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "policy"
    assert main(["default", "--task", "track", "--out", str(out)]) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["type"] == "vla_policy"
    assert config["actions"] == ["dx", "dy"]
    assert config["output_features"] == {"action": {"type": "ACTION", "shape": [2]}}
    assert config["input_features"]["observation.images.front"] == {"type": "VISUAL", "shape": [3, 64, 64]}
    assert (config["frame_ages"], config["chunk"]) == ([20, 16, 12, 8, 4, 0], 4)
    steps = json.loads((out / "policy_preprocessor.json").read_text())["steps"]
    names = [
        "rename_observations_processor",
        "normalizer_processor",
        "device_processor",
    ]  # LeRobot's training sets these
    assert [step["registry_name"] for step in steps] == names
    weights, policy = load_file(out / "model.safetensors"), load_checkpoint(DEFAULT_POLICY).policy.state_dict()
    assert {f"model.{name}" for name in policy} == set(weights)
    assert all(torch.equal(value, weights[f"model.{name}"]) for name, value in policy.items())
    assert load_checkpoint(out / INSIDE).purpose == load_checkpoint(DEFAULT_POLICY).purpose
    assert main(["default", "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_policy_for_another_robot_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["default", "--task", "metaworld/reach", "--out", str(tmp_path / "policy")]) == 2
    assert "task 'metaworld/reach' needs action" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
