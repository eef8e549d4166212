"""Input that once ended in a traceback or worse, given as a user gave it: one line, and nothing is made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from training.data.episodes import Dataset
from vla_policy.cli import main

WriteSmall = Callable[..., Dataset]
Line = Callable[..., str]
DEEP = 100_000


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """Runs a command that must fail, in an empty folder, and gives the line that it says."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def run(*arguments: str) -> str:
        assert main(arguments) == 2
        [said] = capsys.readouterr().err.strip().splitlines()
        assert said.startswith("vla: ")
        assert list(here.iterdir()) == []
        return said

    return run


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    copied: Path = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    return copied


@pytest.mark.parametrize("text", ["a: " + "[" * 3000 + "]" * 3000, "policy: " + "{a: " * 2000 + "1" + "}" * 2000])
def test_yaml_that_is_nested_too_deeply(text: str, line: Line, tmp_path: Path) -> None:
    file = tmp_path / "deep.yaml"
    file.write_text(text)
    assert f"{file}: not readable as YAML (it is nested too deeply)" in line("train", "--config", str(file))
    assert f"{file}: not readable as YAML (it is nested too deeply)" in line("compare", str(file))


@pytest.mark.parametrize("value", ["!!bool foo", '!!int ""', "!!timestamp foo", "!!python/object/apply:os.getcwd []"])
def test_yaml_whose_tags_lie(value: str, line: Line, tmp_path: Path) -> None:
    file = tmp_path / "tags.yaml"
    file.write_text(f"tasks: {value}\n")
    assert f"{file}: not readable as YAML (" in line("train", "--config", str(file))


@pytest.mark.parametrize("name", ["config.json", "provenance.json", "tokenizer.json"])
def test_json_that_is_nested_too_deeply(name: str, line: Line, checkpoint: Path) -> None:
    (checkpoint / name).write_text('{"a":' * DEEP + "1" + "}" * DEEP)
    assert f"{checkpoint / name}: not " in line("rollout", str(checkpoint))


@pytest.mark.parametrize(
    ("key", "words"), [("encoder", "encoder: got null"), ("action_names", "got null, expected a list")]
)
def test_null_where_there_is_something(key: str, words: str, line: Line, checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    section = config["policy"] if key == "encoder" else config["purpose"]
    section[key] = None
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert words in line("rollout", str(checkpoint))


def test_a_tokenizer_larger_than_the_embedding(line: Line, checkpoint: Path) -> None:
    read = json.loads((checkpoint / "tokenizer.json").read_text())
    vocabulary = read["model"]["vocab"]
    vocabulary.update({f"word{i}": len(vocabulary) + i for i in range(50)})
    (checkpoint / "tokenizer.json").write_text(json.dumps(read))
    assert str(checkpoint) in line("rollout", str(checkpoint), "--instruction", "follow the red ball")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["collect", "--config", "debug", "--out", ""], "--out is empty"),
        (["train", "--config", "debug", "--out="], "--out is empty"),
        (["train", "--config", "debug", "--data", ""], "--data is empty"),
        (["dagger", "--config", "debug", "--data="], "--data is empty"),
        (["export", "default", "--check", ""], "--check is empty"),
        (["eval", "default", "--out", ""], "--out is empty"),
        (["eval", ""], "CHECKPOINT is empty"),
        (["demo", "--config", "debug", "--out", ""], "--out is empty"),
        (["ground", "default", "--out", ""], "--out is empty"),
        (["rollout", "default", "--video", ""], "--video is empty"),
        (["eval", "default", "--videos", "-1"], "--videos -1 must be 0 or more"),
        (["demo", "--config", "debug", "--videos", "-1"], "--videos -1 must be 0 or more"),
        (["rollout", "default", "--video", "/proc/nothing/x.mp4"], "/proc/nothing"),
        (["rollout", "default", "--video", "x.abc"], "expected .mp4"),
        (["rollout", "default", "--instruction", "follow the \udcff ball"], "holds half a character"),
        (["train", "--config", "\udcff.yaml"], "no such file"),
        (["train", "--config", "debug", "--policy.attention_heads", "0"], "attention_heads 0 must be at least 1"),
        (["train", "--config", "debug", "--policy.heads", "0"], "'--policy.heads' is unknown"),
    ],
)
def test_options_that_cannot_be(arguments: list[str], words: str, line: Line) -> None:
    assert words in line(*arguments)


@pytest.mark.parametrize(("name", "value"), [("frame_stride", "1000000"), ("frames", "100000")])
def test_windows_longer_than_any_episode(name: str, value: str, line: Line, write_small: WriteSmall) -> None:
    data = write_small(size=64)
    common = ["train", "--config", "debug", "--data", str(data.path), "--out", str(data.path.parent / "run")]
    said = line(*common, f"--policy.{name}", value)
    assert name in said


def test_an_archive_in_place_of_an_array(line: Line, write_small: WriteSmall) -> None:
    data = write_small()
    archive = data.path.parent / "action.npz"
    np.savez(archive, action=data.arrays["action"])
    archive.replace(data.path / "action.npy")
    assert "action.npy" in line("train", "--config", "debug", "--data", str(data.path))


@pytest.mark.parametrize("backend", ["garbage", "glfw"])
@pytest.mark.parametrize("command", ["rollout", "ground"])
def test_a_gl_backend_that_cannot_draw(backend: str, command: str, environment: dict[str, str], tmp_path: Path) -> None:
    settings = {k: v for k, v in environment.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "PYOPENGL_PLATFORM")}
    done = subprocess.run(
        [sys.executable, "-m", "vla_policy.cli", command, "default"],
        env={**settings, "MUJOCO_GL": backend},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    [said] = done.stderr.strip().splitlines()
    assert f"MUJOCO_GL={backend}" in said
