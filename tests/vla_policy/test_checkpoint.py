"""A checkpoint comes back as it was; damaged, foreign or old ones are refused; names."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from configs.policy import GroundingConfig
from vla_policy import checkpoint as module
from vla_policy.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    resolve_checkpoint,
    save_checkpoint,
    weights_digest,
)
from vla_policy.contract import fake_batch
from vla_policy.policy import VLAPolicy
from vla_policy.tokenizer import WordTokenizer

TokenizerOf = Callable[[int], WordTokenizer]
Same = Callable[[Checkpoint, Checkpoint], None]


class TestRoundTrip:
    def test_everything_comes_back(self, made: Checkpoint, folder: Path, assert_same: Same) -> None:
        loaded = load_checkpoint(folder)
        assert_same(made, loaded)
        assert not loaded.policy.training
        assert all(p.device.type == "cpu" for p in loaded.policy.parameters())

    def test_what_an_older_one_does_not_mention_is_as_it_was_then(
        self, made: Checkpoint, make_policy: Callable[..., VLAPolicy], tmp_path: Path, assert_same: Same
    ) -> None:
        made.policy = make_policy(grounding=GroundingConfig(norm="pre"))
        save_checkpoint(made, tmp_path / "checkpoint")
        edit(tmp_path / "checkpoint", lambda config: config["policy"]["grounding"].pop("norm"))
        assert_same(made, load_checkpoint(tmp_path / "checkpoint"))

    def test_it_is_weights_and_json_only(self, folder: Path, files: list[str]) -> None:
        assert sorted(p.name for p in folder.iterdir()) == files
        for file in folder.glob("*.json"):
            assert isinstance(json.loads(file.read_text()), dict)
        weights = load_file(folder / "model.safetensors")
        assert {"normaliser.mean", "normaliser.std", "normaliser.ready"} <= set(weights)
        assert json.loads((folder / "COMPLETE").read_text()) == {"model.safetensors": weights_digest(folder)}

    def test_nothing_is_unpickled(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("a checkpoint was unpickled")

        for name in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load"):
            monkeypatch.setattr(name, refuse)
        load_checkpoint(folder)

    def test_the_config_is_resolved_and_complete(self, made: Checkpoint, folder: Path) -> None:
        described = json.loads((folder / "config.json").read_text())
        assert described["policy"] == json.loads(json.dumps(asdict(made.policy.config)))
        assert described["shapes"] == asdict(made.policy.shapes)
        assert described["purpose"]["action_names"] == ["dx", "dy", "dz"]

    @pytest.mark.parametrize("how", ["wrapped", "in place", "a part of it"])
    def test_a_compiled_policy_is_saved_as_if_it_were_not(self, made: Checkpoint, tmp_path: Path, how: str) -> None:
        policy, names = made.policy.eval(), list(made.policy.state_dict())
        observation = fake_batch(policy.shapes, 2).observation
        expected = policy.act(observation).action
        compiled: Any = policy
        if how == "wrapped":
            compiled = torch.compile(policy, backend="eager")
        elif how == "in place":
            policy.compile(backend="eager")
        else:
            policy.head = torch.compile(policy.head, backend="eager")  # type: ignore[assignment]
        assert any("_orig_mod" in name for name in compiled.state_dict()) is (how != "in place")
        compiled(observation)  # compiles
        save_checkpoint(Checkpoint(compiled, made.tokenizer, made.purpose, {}), tmp_path / "compiled")
        assert set(load_file(tmp_path / "compiled" / "model.safetensors")) == set(names)
        loaded = load_checkpoint(tmp_path / "compiled").policy
        assert loaded.config == policy.config
        assert torch.equal(loaded.act(observation).action, expected)

    def test_half_precision_is_half_the_size_and_acts_alike(
        self, made: Checkpoint, folder: Path, tmp_path: Path
    ) -> None:
        half = load_checkpoint(folder)
        half.policy.half()
        save_checkpoint(half, tmp_path / "half")
        weights = [path / "model.safetensors" for path in (folder, tmp_path / "half")]
        assert weights[1].stat().st_size < 0.7 * weights[0].stat().st_size
        again = load_checkpoint(tmp_path / "half")
        assert {value.dtype for value in again.policy.parameters()} == {torch.float32}
        normaliser = dict(made.policy.normaliser.named_buffers())
        assert all(torch.equal(value, normaliser[name]) for name, value in again.policy.normaliser.named_buffers())
        observation = fake_batch(made.policy.shapes, 2).observation
        acts, acted = (each.policy.eval().act(observation).action for each in (made, again))
        torch.testing.assert_close(acts, acted, atol=5e-3, rtol=0)

    def test_saving_again_replaces_the_whole_folder(
        self, made: Checkpoint, folder: Path, files: list[str], assert_same: Same
    ) -> None:
        (folder / "stray.txt").write_text("from an older run")
        with torch.no_grad():
            made.policy.head.layers[0].bias.add_(1)  # type: ignore[operator]
        save_checkpoint(made, folder)
        assert_same(made, load_checkpoint(folder))
        assert sorted(p.name for p in folder.iterdir()) == files
        assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]

    def test_a_save_that_fails_leaves_the_checkpoint_before(
        self, made: Checkpoint, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fill_the_disk(*_: object) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr(made.tokenizer, "save", fill_the_disk)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(made, folder)
        load_checkpoint(folder)

    def test_saving_into_a_folder_of_something_else_leaves_that_alone(
        self, made: Checkpoint, tmp_path: Path, files: list[str], assert_same: Same
    ) -> None:
        (tmp_path / "thesis.tex").write_text("years of work")
        save_checkpoint(made, tmp_path)
        assert_same(made, load_checkpoint(tmp_path))
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*files, "thesis.tex"])

    def test_weights_that_do_not_fit_on_the_disk_are_an_os_error(
        self, made: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fill_the_disk(*_: object) -> None:
            raise SafetensorError("I/O error: No space left on device (os error 28)")

        monkeypatch.setattr(module, "save_file", fill_the_disk)
        with pytest.raises(OSError, match=r"model\.safetensors: not written .*No space left"):
            save_checkpoint(made, tmp_path / "checkpoint")
        assert not (tmp_path / "checkpoint").exists()

    def test_a_copy_of_the_folder_loads_from_anywhere(
        self, made: Checkpoint, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assert_same: Same
    ) -> None:
        shutil.move(folder, tmp_path / "elsewhere")
        monkeypatch.chdir(tmp_path)
        assert_same(made, load_checkpoint(Path("elsewhere")))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    described = json.loads((folder / "config.json").read_text())
    change(described)
    (folder / "config.json").write_text(json.dumps(described))


def test_settings_that_are_not_mentioned_are_as_they_were_then(timed_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(timed_checkpoint, tmp_path / "old")
    assert load_checkpoint(folder).policy.config.grounding.divergence == "from_prediction"
    edit(folder, lambda d: d["policy"]["grounding"].pop("divergence"))
    assert load_checkpoint(folder).policy.config.grounding.divergence == "from_truth"
    for damaged in ([], "policy", {"grounding": []}):
        edit(folder, lambda d, damaged=damaged: d.update(policy=damaged))
        with pytest.raises(CheckpointError, match=r"config\.json: does not describe a policy"):
            load_checkpoint(folder)


class TestDamage:
    def refused(self, folder: Path, file: str, words: str = "") -> None:
        with pytest.raises(CheckpointError, match=f"^{re.escape(str(folder / file))}: .*{words}") as caught:
            load_checkpoint(folder)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("file", ["config.json", "model.safetensors", "provenance.json", "tokenizer.json"])
    def test_a_missing_file(self, folder: Path, file: str) -> None:
        (folder / file).unlink()
        self.refused(folder, file, "missing, so the checkpoint is damaged; choose another or train again")

    def test_an_unfinished_checkpoint(self, folder: Path) -> None:
        (folder / "COMPLETE").write_bytes(b"\xff\xfe")
        self.refused(folder, "COMPLETE", "not readable as JSON")
        (folder / "COMPLETE").unlink()
        self.refused(folder, "COMPLETE", "missing, so the checkpoint was not finished")

    @pytest.mark.parametrize("rate", [0, 1e300])
    def test_a_rate_that_no_robot_has(self, folder: Path, rate: float) -> None:
        edit(folder, lambda d: d["purpose"].update(control_hz=rate))
        self.refused(folder, "config.json", "must be a number from 0.001 to 100000")

    @pytest.mark.parametrize("file", ["config.json", "provenance.json", "tokenizer.json", "model.safetensors"])
    @pytest.mark.parametrize("damage", ["empty", "half", "binary"])
    def test_a_damaged_file(self, folder: Path, file: str, damage: str) -> None:
        whole = (folder / file).read_bytes()
        content = {"empty": b"", "half": whole[: len(whole) // 2], "binary": b"\xff\xfe\x00" * 50}[damage]
        (folder / file).write_bytes(content)
        self.refused(folder, file)

    @pytest.mark.parametrize("file", ["config.json", "provenance.json"])
    def test_json_that_is_no_object(self, folder: Path, file: str) -> None:
        (folder / file).write_text("[1, 2]")
        self.refused(folder, file, "holds list, expected an object")

    @pytest.mark.parametrize("version", [0, 99, "1", None, True])
    def test_another_schema(self, folder: Path, version: object) -> None:
        edit(folder, lambda d: d.update(schema_version=version))
        self.refused(folder, "config.json", f"schema_version {version!r}, expected 2 or 1; it may come from")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda d: d.pop("policy"), "'policy'"),
            (lambda d: d.pop("shapes"), "'shapes'"),
            (lambda d: d["policy"].update(colour="red"), "colour"),
            (
                lambda d: d["policy"]["head"].update(name="chunk_l2"),
                r"head.name: got .chunk_l2. \(did you mean chunk_l1",
            ),
            (lambda d: d["policy"]["language"].update(name="no_such_language"), "no_such_language"),
            (lambda d: d["policy"].update(encoder=None), "encoder: got null, expected an object"),
            (lambda d: d["policy"].update(attention_heads=0), "attention_heads 0 must be at least 1"),
            (lambda d: d["policy"].update(frames="three"), "frames: got .three., expected an integer"),
            (lambda d: d.update(schema_version=1), "'heads'"),
            (lambda d: d["policy"].update(width=7), "width 7 must be a multiple"),
            (lambda d: d["shapes"].pop("actions"), "actions"),
            (lambda d: d["purpose"].pop("tasks"), "tasks"),
            (lambda d: d["purpose"].update(tasks=[]), r"purpose.tasks \[\] must be one or more names, each once"),
            (lambda d: d["shapes"].update(size=-32), "shapes.size: got -32, expected 1 to"),
            (lambda d: d["shapes"].update(vocabulary=10**12), "shapes.vocabulary: got 1000000000000, expected 1 to"),
            (lambda d: d["shapes"].update(frames=99), "shapes.frames: got 99, expected 3, policy.frames"),
            (lambda d: d["shapes"].update(actions=7), "shapes.actions: got 7, expected 3, the number of purpose.act"),
            (lambda d: d["shapes"].update(proprioception=9), "shapes.proprioception: got 9, expected 4"),
        ],
    )
    def test_a_config_that_describes_no_policy(
        self, folder: Path, change: Callable[[dict[str, Any]], object], words: str
    ) -> None:
        edit(folder, change)
        self.refused(folder, "config.json", f"does not describe a policy .*{words}")

    @pytest.mark.parametrize("damage", ["other width", "missing tensor", "extra tensor", "other shapes"])
    def test_weights_of_another_policy(self, folder: Path, damage: str) -> None:
        file = folder / "model.safetensors"
        weights = load_file(file)
        if damage == "missing tensor":
            del weights["normaliser.mean"]
        elif damage == "extra tensor":
            weights["extra"] = torch.zeros(2)
        elif damage == "other shapes":
            edit(folder, lambda d: d["shapes"].update(vocabulary=41))
        else:
            edit(folder, lambda d: d["policy"].update(width=32))
        save_file(weights, file)
        named = {"missing tensor": "normaliser.mean", "extra tensor": "extra"}.get(damage, "size mismatch for")
        self.refused(
            folder,
            "model.safetensors",
            f"not this policy's weights, or those of another version; train again .*{named}",
        )

    @pytest.mark.parametrize("size", [39, 41])
    def test_a_tokenizer_of_another_policy(self, folder: Path, size: int, tokenizer_of: TokenizerOf) -> None:
        tokenizer_of(size).save(folder)
        self.refused(folder, "tokenizer.json", f"has {size} entries, expected the 40 of the policy's embedding")

    def test_a_tokenizer_with_numbers_beyond_the_embedding(self, folder: Path) -> None:
        read = json.loads((folder / "tokenizer.json").read_text())
        read["model"]["vocab"]["word0"] = 1000
        (folder / "tokenizer.json").write_text(json.dumps(read))
        self.refused(folder, "tokenizer.json", "its words are not numbered from 0 on; restore the file")

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_weights_that_are_not_finite(self, folder: Path, value: float) -> None:
        weights = load_file(folder / "model.safetensors")
        weights["encoder.camera"].flatten()[3] = value
        save_file(weights, folder / "model.safetensors")
        self.refused(folder, "model.safetensors", "'encoder.camera' has values that are not finite; train again")

    def test_weights_with_a_flipped_bit(self, folder: Path) -> None:
        content = bytearray((folder / "model.safetensors").read_bytes())
        content[-50] ^= 1
        (folder / "model.safetensors").write_bytes(content)
        self.refused(folder, "model.safetensors", "its checksum differs from COMPLETE; the file was changed or damaged")

    def test_a_scale_of_nothing(self, folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights["normaliser.std"][1] = 0
        save_file(weights, folder / "model.safetensors")
        self.refused(folder, "model.safetensors", "'normaliser.std' has values that are not above 0")

    def test_a_checkpoint_from_before_there_were_checksums(self, folder: Path) -> None:
        (folder / "COMPLETE").write_text("")
        load_checkpoint(folder)

    def test_no_folder(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none", tmp_path / "file"):
            (tmp_path / "file").write_text("")
            with pytest.raises(
                CheckpointError, match=f"^{path}: no checkpoint folder here; train one with `vla train`"
            ):
                load_checkpoint(path)

    def test_it_is_an_error_of_the_users_kind(self) -> None:
        assert issubclass(CheckpointError, ValueError)


def test_names_mean_the_policies_that_ship() -> None:
    assert module.shipped_names()[0] == "default"
    for name in module.shipped_names():
        assert resolve_checkpoint(name) == module.SHIPPED / name
    assert resolve_checkpoint("runs/mine") == Path("runs/mine")


@pytest.mark.parametrize("given", ["run", "run/train", "run/train/checkpoint"])
def test_a_run_means_its_checkpoint(given: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "train" / "checkpoint"
    checkpoint.mkdir(parents=True)
    (checkpoint / module.COMPLETE).touch()
    assert resolve_checkpoint(str(tmp_path / given)) == checkpoint
