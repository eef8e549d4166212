"""Random damage to everything that people write or carry about: never a traceback, always one line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.commands import COMMANDS
from configs.policy import PolicyConfig
from configs.run import find_run
from configs.training import TrainConfig
from eval.results import load_results
from training.data.episodes import HEADER, Dataset, header_checksum, open_dataset
from training.log import read_log
from training.run_folder import changed, check_same
from vla_policy.checkpoint import load_checkpoint
from vla_policy.cli import main

ROOT = Path(__file__).resolve().parents[2]
WriteSmall = Callable[..., Dataset]

OPTIONS = [
    "--config",
    "--train.steps",
    "--policy.encoder.name",
    "--policy.heads",
    "--eval.episodes",
    "--videos",
    "--collect.noise",
    "--policy.cameras",
    "--train.augment.shift",
    "--seed",
    "--eval",
    "--policy.head",
]
# Every run of the tests tries the same ones, so that what a change breaks is found by the change; `make faults` more.
fuzz = settings(
    derandomize=True,
    max_examples=int(os.environ.get("FUZZ", "25")),
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
words = st.one_of(
    st.sampled_from(
        ["", "track", "two_stream", "none", "auto", "a,b", "[", "{", "1e999", "nan", "-1", "0", "null", "~"]
    ),
    st.text(max_size=12).filter(lambda text: not text.startswith("-h")),
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.sampled_from([-1, 0, 1, 10**5]), st.floats(), words
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=6,
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a tree."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


@st.composite
def damaged(draw: st.DrawFn, tree: Any) -> Any:
    """A tree with one to three values replaced, taken away, or with a neighbour that does not belong there."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw(st.integers(1, 3))):
        depth = draw(st.integers(1, 8))  # or else what is written most often would be damaged most often
        ways = [way for way in places(tree) if len(way) <= depth]
        if not ways:
            return draw(values)
        way = draw(st.sampled_from(ways))
        holder = tree
        for key in way[:-1]:
            holder = holder[key]
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                holder[way[-1]] = draw(values)
            case "remove":
                del holder[way[-1]]
            case "add" if isinstance(holder, dict):
                holder[draw(words)] = draw(values)
            case "add":
                holder.append(draw(values))
    return tree


def written(value: Any) -> str:
    return json.dumps(value, default=str)


def one_line_or_nothing(act: Callable[[], object]) -> None:
    """Whatever is wrong is a ValueError of one line, which says something."""
    said = "nothing"
    try:
        act()
    except ValueError as error:
        said = str(error)
    assert said.strip()
    assert "\n" not in said


@pytest.fixture
def dataset(write_small: WriteSmall) -> Path:
    return write_small().path


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    copied: Path = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    return copied


class TestFiles:
    """Whoever changes a file can change its checksum, too."""

    @fuzz
    @given(data=st.data())
    def test_headers_of_datasets(self, dataset: Path, data: st.DataObject) -> None:
        keep = dataset / "kept"
        if not keep.exists():
            shutil.copy(dataset / HEADER, keep)
        header = data.draw(damaged(json.loads(keep.read_text())))
        if isinstance(header, dict) and "sha256" in header:
            with suppress(TypeError):  # what cannot be JSON has no checksum
                header["sha256"] = header_checksum(header)
        (dataset / HEADER).write_text(written(header))
        one_line_or_nothing(lambda: open_dataset(dataset))

    @fuzz
    @given(data=st.data())
    @pytest.mark.parametrize("name", ["config.json", "provenance.json", "tokenizer.json", "COMPLETE"])
    def test_files_of_checkpoints(self, checkpoint: Path, name: str, data: st.DataObject) -> None:
        before = (checkpoint / name).read_text()
        tree = json.loads(before) if before.startswith("{") else {"text": before}
        (checkpoint / name).write_text(written(data.draw(damaged(tree))))
        try:
            one_line_or_nothing(lambda: load_checkpoint(checkpoint))
        finally:
            (checkpoint / name).write_text(before)

    @fuzz
    @given(data=st.data())
    def test_folders_of_runs(self, tmp_path: Path, data: st.DataObject) -> None:
        described = {"policy": asdict(PolicyConfig()), "train": asdict(TrainConfig()), "data": {"dataset 0": "abc"}}
        row = {"step": 1, "seconds": 2.0, "loss": 3.0}
        (tmp_path / "config.json").write_text(written(data.draw(damaged({**described, "changes": [{"step": 1}]}))))
        (tmp_path / "log.jsonl").write_text("\n".join(written(data.draw(damaged(row))) for _ in range(3)))
        one_line_or_nothing(lambda: changed(tmp_path, described, ["train.steps"]))
        one_line_or_nothing(lambda: check_same(tmp_path, described))
        assert all(set(row) <= set(found) for found in read_log(tmp_path))

    @fuzz
    @given(data=st.data())
    def test_results(self, tmp_path: Path, data: st.DataObject) -> None:
        results = json.loads((ROOT / "docs" / "results" / "track_event.json").read_text())
        results.pop("sha256", None)
        (tmp_path / "results.json").write_text(written(data.draw(damaged(results))))
        one_line_or_nothing(lambda: load_results(tmp_path / "results.json"))


class TestCommands:
    def refused(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """The command ends with one line; everything given here lacks something."""
        with suppress(SystemExit):  # --help
            code = main(arguments)
            said = capsys.readouterr().err
            assert code in (1, 2), (arguments, code)
            assert len(said.strip().splitlines()) == 1, (arguments, said)
            assert said.startswith("vla: ")

    @fuzz
    @given(data=st.data())
    def test_files_of_runs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: st.DataObject) -> None:
        run = yaml.safe_load(find_run("debug").read_text())
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump(data.draw(damaged(run)), allow_unicode=True))
        self.refused(["train", "--config", str(file), "--data", str(tmp_path / "nowhere")], capsys)

    @fuzz
    @given(data=st.data())
    def test_command_lines(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: st.DataObject) -> None:
        nowhere = str(tmp_path / "nowhere")
        lacking = {
            "collect": ["--tasks", "nothing"],
            "train": ["--data", nowhere],
            "eval": [nowhere],
            "rollout": [nowhere],
            "ground": [nowhere],
            "compare": [nowhere],
        }
        command = data.draw(st.sampled_from(sorted(lacking)))
        assert command in COMMANDS
        options = st.sampled_from(OPTIONS)
        given_ = data.draw(st.lists(st.tuples(options, words), max_size=3))
        more = [word for pair in given_ for word in pair]
        self.refused([command, *more, *lacking[command]], capsys)
