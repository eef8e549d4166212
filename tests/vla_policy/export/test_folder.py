"""What an export leaves, in every format, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from configs.export import ExportConfig
from vla_policy.checkpoint import load_checkpoint, weights_digest
from vla_policy.decision import majority
from vla_policy.export.folder import export_checkpoint, open_graphs
from vla_policy.export.formats import FORMATS, trace
from vla_policy.export.graphs import Units, graphs_of

ROOT = Path(__file__).parents[3]
Export = Callable[..., Path]


def _export(checkpoint: Path, format: str, folder: Path) -> Path:
    loaded = load_checkpoint(checkpoint)
    config, units = ExportConfig(format=format), Units.plain(loaded.purpose.action_names)  # type: ignore[arg-type]
    export_checkpoint(loaded, weights_digest(checkpoint), folder, config, units)
    return folder


@pytest.fixture(scope="module")
def onnx(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _export(tiny_checkpoint, "onnx", tmp_path_factory.mktemp("export") / "onnx")


class Doubled(nn.Module):
    """A graph that is traced at once, in place of a policy's."""

    def inputs(self) -> dict[str, Tensor]:
        return {"x": torch.ones(2, 3)}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": 2 * x}


@pytest.fixture
def export(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Export:
    """Exports by format to a folder, of which the graph is another one."""
    monkeypatch.setattr("vla_policy.export.folder.graphs_of", lambda *_: {"window": Doubled()})
    return lambda format, folder=None: _export(tiny_checkpoint, format, folder or tmp_path / format)


@pytest.mark.slow
def test_onnx_says_what_the_policy_says(onnx: Path, tiny_checkpoint: Path) -> None:
    described, runs = open_graphs(onnx, threads=1)
    checkpoint = load_checkpoint(tiny_checkpoint)
    assert list(runs) == ["window", "stream"]
    for name, graph in graphs_of(checkpoint, Units.plain(checkpoint.purpose.action_names)).items():
        given = graph.inputs()
        with torch.no_grad():
            expected = graph(**given)
        shapes = described["graphs"][name]
        assert {key: value["shape"] for key, value in shapes["inputs"].items()} == {
            key: ["batch", *value.shape[1:]] for key, value in given.items()
        }
        for rows in (slice(1), slice(2), [0, 1, 0]):
            got = runs[name]({key: value[rows].numpy() for key, value in given.items()})
            assert list(got) == list(shapes["outputs"])
            for key, value in expected.items():
                np.testing.assert_allclose(got[key], value[rows].numpy(), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_example_runs_an_episode_without_torch(onnx: Path) -> None:
    example = ROOT / "docs" / "examples" / "run_onnx.py"
    code = f"""
import runpy, sys
sys.argv = ["run_onnx.py", {str(onnx)!r}, "track"]
runpy.run_path({str(example)!r}, run_name="__main__")
print(sorted({{"torch", "vla_policy", "transformers"}} & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    said, loaded = done.stdout.splitlines()
    assert re.fullmatch(r"'.*': (failure|success) after \d+ steps", said)
    assert loaded == "[]"


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_runs_for_any_number_of_rows(format: str, export: Export) -> None:
    _, runs = open_graphs(export(format), threads=1)
    for rows in (1, 2, 5):
        x = np.arange(3 * rows, dtype=np.float32).reshape(rows, 3)
        np.testing.assert_array_equal(runs["window"]({"x": x})["y"], 2 * x)


@pytest.mark.slow
def test_a_majority_is_counted_in_onnx_as_in_torch(tmp_path: Path) -> None:
    class Majority(nn.Module):
        def forward(self, votes: Tensor) -> dict[str, Tensor]:
            return {"decided": majority(votes)}

    votes = torch.rand(64, 3, 4, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    program, expected = trace(Majority(), {"votes": votes})  # type: ignore[arg-type]
    file = tmp_path / "majority.onnx"
    FORMATS["onnx"].write(program, ["votes"], ["decided"], file)
    np.testing.assert_array_equal(
        FORMATS["onnx"].open(file, 1)({"votes": votes.numpy()})["decided"], expected["decided"]
    )


def test_what_lies_beside_the_graphs(export: Export, tiny_checkpoint: Path) -> None:
    folder, checkpoint = export("torch"), load_checkpoint(tiny_checkpoint)
    assert {file.name for file in folder.iterdir()} == {"window.pt2", "tokenizer.json", "export.json"}
    described = json.loads((folder / "export.json").read_text())
    assert described["weights_sha256"] == weights_digest(tiny_checkpoint)
    assert described["action_names"] == list(checkpoint.purpose.action_names)
    assert (described["action_low"], described["action_high"]) == ([-1.0, -1.0], [1.0, 1.0])
    assert (described["cameras"], described["frames"], described["frame_ages"]) == (["front"], 3, [8, 4, 0])
    assert (described["execute"], described["control_hz"]) == (2, 20.0)
    assert (folder / "tokenizer.json").read_bytes() == (tiny_checkpoint / "tokenizer.json").read_bytes()


def test_an_earlier_export_is_replaced_and_nothing_else(export: Export, tmp_path: Path) -> None:
    folder = export("torch")
    (folder / "window.onnx").write_text("of an earlier one")
    export("torch", folder)
    assert not (folder / "window.onnx").exists()
    taken = tmp_path / "thesis"
    taken.mkdir()
    (taken / "chapter.tex").write_text("years of work")
    with pytest.raises(ValueError, match="holds something else than an export"):
        export("torch", taken)
    assert [file.name for file in taken.iterdir()] == ["chapter.tex"]
    with pytest.raises(ValueError, match="is a file, expected a folder"):
        export("torch", taken / "chapter.tex")


def test_an_export_that_fails_leaves_the_earlier_one(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export("torch")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(torch.export, "save", full)
    with pytest.raises(OSError, match="input/output"):
        export("torch", folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(("format", "package"), [("onnx", "onnxscript"), ("openvino", "openvino")])
def test_a_missing_package_is_named_before_the_work(
    format: str, package: str, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf'{package}.*run: pip install "vla_policy\[{format}\]"'):
        export(format)


def test_openvino_reports_to_nobody() -> None:
    FORMATS["openvino"].check("openvino")
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"


def test_no_export_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"export.json: missing, so this is no export; make one with `vla export`"):
        open_graphs(tmp_path, threads=1)
