"""Two processes that write to one place: the second one says who has it, and nothing is lost or mixed up."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from training.data.episodes import Dataset
from training.data.writer import DatasetWriter
from training.lock import LOCK, LockedError, hold_file, hold_folder
from vla_policy.cli import main

Start = Callable[..., "subprocess.Popen[str]"]
WriteSmall = Callable[..., Dataset]

HOLD = """
import sys
from pathlib import Path
from training.lock import hold_file, hold_folder
sys.argv[0] = "vla"
with {"file": hold_file, "folder": hold_folder}[sys.argv[2]](Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
# Takes turns with others; the file shows whether two were in at once.
TURNS = """
import os, sys
from pathlib import Path
from training.lock import LockedError, hold_folder
place, won = Path(sys.argv[1]), 0
while won < 20:
    try:
        with hold_folder(place / "run"):
            os.close(os.open(place / "inside", os.O_CREAT | os.O_EXCL))
            os.unlink(place / "inside")
            won += 1
    except LockedError:
        pass
"""


@pytest.fixture
def hold(start: Start) -> Callable[[Path, str], subprocess.Popen[str]]:
    """Another process that has a place."""

    def begin(place: Path, kind: str) -> subprocess.Popen[str]:
        process = start(sys.executable, "-c", HOLD, str(place), kind)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    return begin


@pytest.mark.parametrize(
    ("arguments", "place", "kind"),
    [
        (["train", "--config", "debug", "--data", "{data}", "--out", "{out}"], "out", "folder"),
        (["collect", "--config", "debug", "--tasks", "reach", "--out", "{out}"], "out/reach.shards", "folder"),
        (["eval", "default", "--config", "debug", "--out", "{out}"], "out", "folder"),
        (["demo", "--config", "debug", "--out", "{out}"], "out", "folder"),
        (["dagger", "--config", "debug", "--out", "{out}"], "out", "folder"),
        (["ground", "default", "--out", "{out}"], "out", "folder"),
        (["compare", "configs/grids/track.yaml", "--out", "{out}"], "out", "folder"),
        (["bench", "--seconds", "1", "--episodes", "1", "--out", "{out}"], "out", "file"),
        (["rollout", "default", "--video", "{out}.mp4"], "out.mp4", "file"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_second_one_names_the_first(
    hold: Callable[[Path, str], subprocess.Popen[str]],
    write_small: WriteSmall,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    place: str,
    kind: str,
) -> None:
    write_small("track")
    other = hold(tmp_path / place, kind)
    filled = [text.format(data=tmp_path / "track", out=tmp_path / "out") for text in arguments]
    assert main(filled) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"vla: {tmp_path / place}: process {other.pid} on ")
    assert f"`vla {tmp_path / place} {kind}`, since 20" in line
    assert line.endswith("writes there; wait for it, end it, or choose another place")


def test_two_writers_of_a_dataset(write_small: WriteSmall, tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "mine"), pytest.raises(LockedError, match="writes there"):
        DatasetWriter(tmp_path / "mine")
    DatasetWriter(tmp_path / "mine").close()


def test_a_killed_holder_holds_nothing(hold: Callable[[Path, str], subprocess.Popen[str]], tmp_path: Path) -> None:
    other = hold(tmp_path / "run", "folder")
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / "run" / LOCK).is_file()  # what it left stops nobody
    with hold_folder(tmp_path / "run"):
        holder = json.loads((tmp_path / "run" / LOCK).read_text())
        assert set(holder) == {"pid", "host", "command", "since"}
    assert list((tmp_path / "run").iterdir()) == []


def test_a_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    with hold_folder(tmp_path / "a" / "b"), hold_file(tmp_path / "a" / "c.json"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_many_take_turns(start: Start, tmp_path: Path) -> None:
    crowd = [start(sys.executable, "-c", TURNS, str(tmp_path)) for _ in range(3)]
    for one in crowd:
        _, said = one.communicate(timeout=120)
        assert one.returncode == 0, said
    assert list(tmp_path.rglob("*")) in ([], [tmp_path / "run"])


@pytest.mark.long
class TestWhole:
    """Two whole commands at once."""

    def both(self, vla: Start, first: list[str], second: list[str]) -> list[str]:
        """What the one that lost said; the other one came to its end."""
        processes = [vla(*first), vla(*second)]
        said = [process.communicate(timeout=900)[1] for process in processes]
        codes = [process.returncode for process in processes]
        assert sorted(codes) == [0, 2], said
        return said[codes.index(2)].strip().splitlines()[-1:]

    def test_trainings(self, vla: Start, write_small: WriteSmall, tmp_path: Path) -> None:
        write_small("data", lengths=(40,) * 8)
        common = ["train", "--config", "debug", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
        common += ["--train.steps", "60", "--train.threads", "1", "--train.learning_rate"]
        [line] = self.both(vla, [*common, "1e-3"], [*common, "2e-3"])
        assert "writes there" in line
        settings = json.loads((tmp_path / "run" / "config.json").read_text())
        made = json.loads((tmp_path / "run" / "checkpoint" / "provenance.json").read_text())
        assert settings["train"] == made["settings"]["train"]

    def test_collections(self, vla: Start, tmp_path: Path) -> None:
        common = ["collect", "--config", "debug", "--tasks", "reach", "--collect.episodes", "4"]
        common += ["--collect.size", "16", "--out", str(tmp_path)]
        [line] = self.both(vla, common, common)
        assert "writes there" in line
        assert [path.name for path in tmp_path.iterdir()] == ["reach"]

    def test_evaluations(self, vla: Start, tmp_path: Path) -> None:
        common = ["eval", "default", "--config", "debug", "--tasks", "reach", "--controls", "none", "--videos", "0"]
        common += ["--episodes", "1", "--workers", "1", "--out", str(tmp_path / "eval"), "--seed"]
        [line] = self.both(vla, [*common, "0"], [*common, "5"])
        assert "writes there" in line
        assert json.loads((tmp_path / "eval" / "results.json").read_text())["complete"]
