"""What an export leaves, in every format, and what it refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.export import ExportConfig
from vla_policy.checkpoint import load_checkpoint, weights_digest
from vla_policy.export.folder import export_checkpoint, open_graphs
from vla_policy.export.formats import FORMATS
from vla_policy.export.graphs import Units, graphs_of

Export = Callable[..., Path]


@pytest.fixture
def export(tiny_checkpoint: Path, tmp_path: Path) -> Export:
    def made(format: str, folder: Path | None = None) -> Path:
        checkpoint, folder = load_checkpoint(tiny_checkpoint), folder or tmp_path / format
        config, units = ExportConfig(format=format), Units.plain(checkpoint.purpose.action_names)  # type: ignore[arg-type]
        export_checkpoint(checkpoint, weights_digest(tiny_checkpoint), folder, config, units)
        return folder

    return made


@pytest.mark.parametrize("format", FORMATS)
def test_what_was_written_says_what_the_policy_says(format: str, export: Export, tiny_checkpoint: Path) -> None:
    described, runs = open_graphs(export(format), threads=1)
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


def test_what_lies_beside_the_graphs(export: Export, tiny_checkpoint: Path) -> None:
    folder, checkpoint = export("torch"), load_checkpoint(tiny_checkpoint)
    assert {file.name for file in folder.iterdir()} == {"window.pt2", "stream.pt2", "tokenizer.json", "export.json"}
    described = json.loads((folder / "export.json").read_text())
    assert described["weights_sha256"] == weights_digest(tiny_checkpoint)
    assert described["action_names"] == list(checkpoint.purpose.action_names)
    assert (described["action_low"], described["action_high"]) == ([-1.0] * 3, [1.0] * 3)
    assert (described["cameras"], described["frames"], described["frame_stride"]) == (["front"], 3, 4)
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
    monkeypatch.setattr(torch.export, "save", lambda *_: (_ for _ in ()).throw(OSError(5, "input/output error")))
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
