"""Checkpoints through the Hub's mixin: into clones and the cache's links, and back from folders and snapshots."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vla_policy import checkpoint as module
from vla_policy.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint

Same = Callable[[Checkpoint, Checkpoint], None]


def test_saved_and_read_through_the_mixin(
    made: Checkpoint, tmp_path: Path, files: list[str], assert_same: Same
) -> None:
    made.save_pretrained(tmp_path / "hub")
    assert set(files) <= {p.name for p in (tmp_path / "hub").iterdir()}
    assert_same(made, Checkpoint.from_pretrained(str(tmp_path / "hub")))
    assert_same(made, Checkpoint.from_pretrained(tmp_path / "hub"))
    assert_same(made, load_checkpoint(tmp_path / "hub"))


def test_a_cloned_repository_keeps_what_is_not_the_checkpoints(
    made: Checkpoint, tmp_path: Path, files: list[str], assert_same: Same
) -> None:
    clone = tmp_path / "clone"
    others = {
        ".git/HEAD": "ref: main",
        ".gitattributes": "*.safetensors lfs",
        "README.md": "ours",
        "docs/a.md": "a",
    }
    for name, text in others.items():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(text)
    for bias in (0.0, 1.0):  # the second time it is a checkpoint folder as well
        with torch.no_grad():
            made.policy.head.layers[0].bias.fill_(bias)  # type: ignore[operator, union-attr]
        made.save_pretrained(clone)
        assert_same(made, load_checkpoint(clone))
        assert {name: (clone / name).read_text() for name in others} == others
        assert sorted(p.name for p in clone.iterdir()) == sorted([*files, *(n.split("/")[0] for n in others)])


def test_links_into_the_hubs_cache_are_replaced_not_followed(
    made: Checkpoint, folder: Path, tmp_path: Path, assert_same: Same
) -> None:
    shutil.move(folder / "model.safetensors", tmp_path / "blob")
    (folder / "model.safetensors").symlink_to(tmp_path / "blob")
    before = (tmp_path / "blob").read_bytes()
    with torch.no_grad():
        made.policy.head.layers[0].bias.add_(1)  # type: ignore[operator, union-attr]
    made.save_pretrained(folder)
    assert (tmp_path / "blob").read_bytes() == before
    assert_same(made, load_checkpoint(folder))


def test_a_folder_is_no_checkpoint_while_its_files_change(
    made: Checkpoint, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(source: Path, target: Path) -> None:
        if target.name == "tokenizer.json":
            raise KeyboardInterrupt
        original(source, target)

    original = os.replace
    monkeypatch.setattr(module.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        made.save_pretrained(folder)
    with pytest.raises(CheckpointError, match="COMPLETE: missing, so the checkpoint was not finished"):
        load_checkpoint(folder)
    assert not list(folder.glob(".partial-*"))


def test_a_downloaded_snapshot_is_read_from_the_cache_offline(made: Checkpoint, tmp_path: Path) -> None:
    commit = "0" * 40
    repo = tmp_path / "cache" / "models--someone--policy"
    save_checkpoint(made, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    code = (
        "import sys\nfrom vla_policy.checkpoint import Checkpoint\n"
        "loaded = Checkpoint.from_pretrained('someone/policy', cache_dir=sys.argv[1])\n"
        "print(loaded.purpose.tasks)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code, str(tmp_path / "cache")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "('track',)"
