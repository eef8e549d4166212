"""Trainings that diverge: the last good state is kept, and one can go on from it with a lower rate."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training import bc
from training.data.episodes import Dataset
from training.health import diverged
from training.run_folder import check_same
from training.state import FILE
from vla_policy.checkpoint import load_checkpoint
from vla_policy.cli import main
from vla_policy.policy import VLAPolicy

WriteSmall = Callable[..., Dataset]
SMALL = ["--policy.width=16", "--policy.attention_heads=2", "--policy.encoder.backbone.channels=8", "--train.threads=1"]


@pytest.fixture
def command(write_small: WriteSmall, tmp_path: Path) -> Callable[..., list[str]]:
    """`vla train` into one folder, with a state after every second step."""
    write_small("data")

    def make(*more: str) -> list[str]:
        fixed = ["--config=debug", f"--data={tmp_path / 'data'}", f"--out={tmp_path / 'run'}", "--train.save_every=2"]
        return ["train", *fixed, *SMALL, "--train.steps=8", *more]

    return make


def saved_weights(run: Path) -> dict[str, torch.Tensor]:
    values: dict[str, torch.Tensor] = torch.load(run / "state" / FILE, weights_only=True)["policy"]
    return values


def test_a_user_lowers_the_rate_of_a_run_that_diverged(
    command: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = bc.train_step

    def explode(module: torch.nn.Module, policy: VLAPolicy, *args: object) -> dict[str, torch.Tensor]:
        """As far too high a rate does after a while: the loss is still a number, the weights are lost."""
        metrics = step(module, policy, *args)  # type: ignore[arg-type]
        explode.calls += 1  # type: ignore[attr-defined]
        if explode.calls == 4:  # type: ignore[attr-defined]
            with torch.no_grad():
                policy.encoder.camera.fill_(1e30)
        return metrics

    explode.calls = 0  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(bc, "train_step", explode)
        assert main(command()) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "step 4: training has diverged (encoder.camera has a weight of 1e+30), so this state is not saved" in line
    advice = f"`vla train --out {tmp_path / 'run'} --resume --change train.learning_rate` with a lower one"
    assert line.endswith(f"go on from the last saved state by {advice}")
    assert all(
        value.abs().max() < 1e3 for value in saved_weights(tmp_path / "run").values() if value.is_floating_point()
    )

    assert main(command("--resume", "--train.learning_rate=1e-4")) == 2
    assert "give the same settings again, name it with --change train.learning_rate, or" in capsys.readouterr().err
    assert main(command("--resume", "--train.learning_rate=1e-4", "--change", "train.learning_rate")) == 0
    made = load_checkpoint(tmp_path / "run" / "checkpoint").provenance
    assert made["steps"] == 8
    assert made["changes"] == [{"step": 2, "setting": "train.learning_rate", "was": 0.001, "now": 0.0001}]
    assert made["settings"]["train"]["learning_rate"] == 1e-4
    assert json.loads((tmp_path / "run" / "config.json").read_text())["changes"] == made["changes"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--change", "train.learning_rate"], "only a run that is gone on with can be changed; add --resume"),
        (["--resume", "--change", "policy.width"], "--change policy.width: cannot be changed in a run"),
    ],
)
def test_what_cannot_be_changed(
    command: Callable[..., list[str]], more: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if "--resume" in more:
        (tmp_path / "run" / "state").mkdir(parents=True)
        (tmp_path / "run" / "state" / FILE).touch()
    assert main(command(*more)) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert words in line


def test_a_resumed_run_says_what_its_changes_do_not_do(
    command: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = bc.train_step
    calls: list[int] = []

    def stop(*args: object) -> dict[str, torch.Tensor]:
        calls.append(1)
        if len(calls) == 6:
            raise MemoryError
        return step(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(bc, "train_step", stop)
        assert main(command()) == 2
    capsys.readouterr()
    for more, words in (
        (["--change", "train.learning_rate"], "--change train.learning_rate: is 0.001 as before; give another one"),
        (["--train.steps=2", "--change", "train.steps"], "4 steps are done, more than train.steps 2; give 4 or more"),
    ):
        assert main(command("--resume", *more)) == 2
        assert words in capsys.readouterr().err
    assert (tmp_path / "run" / "state" / FILE).is_file()
    assert main(command("--resume", "--train.steps=4", "--change", "train.steps")) == 0
    assert load_checkpoint(tmp_path / "run" / "checkpoint").provenance["steps"] == 4
    # With the settings that it has come to, it is the run that is asked for.
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["train"]["steps"] == 4
    check_same(tmp_path / "run", {name: config[name] for name in ("policy", "train", "data")})


def test_losses_and_weights_that_show_it() -> None:
    layer = torch.nn.Linear(2, 2)
    assert diverged(layer, 3.0, 0.1) == ""
    assert diverged(layer, -5.0, -2.0) == ""  # of a likelihood
    assert diverged(layer, 1e4, 2.0) == "the loss was 2 and is 1e+04"
    assert diverged(layer, math.nan, 2.0) == "the loss was 2 and is nan"
    torch.nn.init.constant_(layer.bias, math.inf)
    assert diverged(layer, 1.0, 2.0) == "bias has a weight of inf"


def test_a_loss_on_held_out_episodes_that_is_not_a_number_stops_the_run(
    command: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bc, "_validate", lambda *_: {"validation_loss": math.nan})
    assert main(command()) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "step 8: on held-out episodes, validation_loss is nan; look at the data, or go on from the last" in line
    assert not (tmp_path / "run" / "checkpoint").exists()
