"""A checkpoint: one folder that holds all that is needed to act, and nothing that is executed on loading.

| file | content |
|---|---|
| `model.safetensors` | weights, with the normaliser's statistics as buffers |
| `config.json` | schema version, resolved `PolicyConfig`, `Shapes`, and what the policy was made for |
| `tokenizer.json` | the word tokenizer; or, with a pretrained text model: |
| `language/` | `tokenizer.json` and `config.json` of that model, whose weights are among the others |
| `provenance.json` | commit, data checksums, versions, seed, training settings |
| `COMPLETE` | written last; a folder without it is refused |
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from huggingface_hub import PyTorchModelHubMixin, snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from configs.interface import RobotInterface
from configs.policy import UNMENTIONED, PolicyConfig
from vla_policy.contract import Shapes
from vla_policy.policy import VLAPolicy
from vla_policy.tokenizer import TOKENIZERS, TextTokenizer

SCHEMA_VERSION = 1
COMPLETE = "COMPLETE"
SHIPPED = Path(__file__).parent / "assets"  # a folder for each policy that ships
DEFAULT_POLICY = SHIPPED / "default"
T = TypeVar("T")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file, what was found and what to do."""


@dataclass(frozen=True, kw_only=True)
class Purpose:
    """What a policy was trained for: task names, the names of its action and proprioception dimensions, and control
    steps per second, None where the demonstrations did not say.
    """

    tasks: tuple[str, ...]
    action_names: tuple[str, ...]
    agent_pos_names: tuple[str, ...]
    control_hz: float | None = None


class Checkpoint(PyTorchModelHubMixin, library_name="vla_policy"):
    """A policy with its tokenizer and purpose; `save_pretrained`, `from_pretrained` and `push_to_hub` work on it."""

    def __init__(
        self, policy: VLAPolicy, tokenizer: TextTokenizer, purpose: Purpose, provenance: dict[str, Any]
    ) -> None:
        self.policy, self.tokenizer, self.purpose, self.provenance = policy, tokenizer, purpose, provenance

    @property
    def interface(self) -> RobotInterface:
        """The robot that the policy sees, feels and moves."""
        return RobotInterface(
            action_names=self.purpose.action_names,
            agent_pos_names=self.purpose.agent_pos_names,
            cameras=self.policy.config.cameras,
            control_hz=self.purpose.control_hz,
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        # This folder may be a clone of a repository: what else is in it must stay.
        _write_among_others(self, Path(save_directory))

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **kwargs: Any) -> Checkpoint:
        if Path(model_id).is_dir():
            return load_checkpoint(Path(model_id))
        known = {"revision", "cache_dir", "force_download", "local_files_only", "token"}
        return load_checkpoint(Path(snapshot_download(model_id, **{k: v for k, v in kwargs.items() if k in known})))


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint folder; an existing checkpoint is replaced as a whole, once the new one is whole.

    Into a folder that holds anything else, only a checkpoint's own files are written.
    """
    if path.is_dir() and any(path.iterdir()) and not (path / COMPLETE).is_file():
        _write_among_others(checkpoint, path)
        return
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _write(checkpoint, partial)
    previous = path.with_name(f".{path.name}.previous")
    shutil.rmtree(previous, ignore_errors=True)
    if path.exists():
        os.replace(path, previous)
    os.replace(partial, path)
    shutil.rmtree(previous, ignore_errors=True)


def _write_among_others(checkpoint: Checkpoint, path: Path) -> None:
    """Put a checkpoint's files into a folder and leave all others alone; while they change, `COMPLETE` is missing."""
    with tempfile.TemporaryDirectory(dir=path, prefix=".partial-") as made:
        partial = Path(made)
        _write(checkpoint, partial)
        (path / COMPLETE).unlink(missing_ok=True)
        files = [file.relative_to(partial) for file in partial.rglob("*") if file.is_file()]
        for file in sorted(files, key=lambda file: file == Path(COMPLETE)):
            (path / file).parent.mkdir(exist_ok=True)
            os.replace(partial / file, path / file)


def _write(checkpoint: Checkpoint, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    policy = checkpoint.policy
    weights = {name: value.detach().contiguous().cpu() for name, value in policy.state_dict().items()}
    try:
        save_file(weights, folder / "model.safetensors")
    except SafetensorError as error:  # what it makes of a full disk
        raise OSError(f"{folder / 'model.safetensors'}: not written ({error}); free some space") from None
    described = {
        "schema_version": SCHEMA_VERSION,
        "policy": asdict(policy.config),
        "shapes": asdict(policy.shapes),
        "purpose": asdict(checkpoint.purpose),
    }
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    checkpoint.tokenizer.save(folder)
    policy.describe(folder)
    (folder / "provenance.json").write_text(json.dumps(checkpoint.provenance, indent=2) + "\n")
    (folder / COMPLETE).write_text("")


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint folder onto the CPU, in evaluation mode.

    Raises:
        CheckpointError: missing, unfinished, damaged or foreign files; the message names the file.
    """
    if not path.is_dir():
        names = ", ".join(shipped_names())
        raise CheckpointError(
            f"{path}: no checkpoint folder here; train one with `vla train`, or name one that ships: {names}"
        )
    _require(path, (COMPLETE, "config.json", "model.safetensors", "provenance.json"))
    described = _read_json(path / "config.json")
    version = described.get("schema_version")
    if version != SCHEMA_VERSION:
        raise CheckpointError(f"{path / 'config.json'}: schema_version {version!r}, expected {SCHEMA_VERSION}")
    try:
        config = read_dataclass(PolicyConfig, _with_unmentioned(described["policy"]))
        shapes = read_dataclass(Shapes, described["shapes"])
        purpose = read_dataclass(Purpose, described["purpose"])
        kind = TOKENIZERS[config.language.name]
        _require(path, kind.FILES)
        policy = VLAPolicy(config, shapes, saved=path)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path / 'config.json'}: does not describe a policy ({error})") from None
    try:
        policy.load_state_dict(load_file(path / "model.safetensors"))
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()  # torch begins with a headline
        weights = path / "model.safetensors"
        raise CheckpointError(
            f"{weights}: not this policy's weights, or those of another version; train again ({reason})"
        ) from None
    try:
        tokenizer = kind.load(path, config.language.max_words)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    return Checkpoint(policy.eval(), tokenizer, purpose, _read_json(path / "provenance.json"))


def resolve_checkpoint(name: str) -> Path:
    """The folder of a checkpoint given by its path or by that of the run that trained it, or by the name of a policy
    that ships with the package.
    """
    if name in shipped_names():
        return SHIPPED / name
    path = Path(name)
    places = (path, path / "checkpoint", path / "train" / "checkpoint")
    return next((place for place in places if (place / COMPLETE).is_file()), path)


def shipped_names() -> list[str]:
    """Policies that ship with the package; `default` first."""
    names = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())
    return sorted(names, key=lambda name: name != DEFAULT_POLICY.name)


def given_name(path: Path) -> str:
    """What the user called a checkpoint: results are compared and published, and should name nobody's folders."""
    return path.name if path.parent == SHIPPED else str(path)


def read_dataclass(kind: type[T], values: dict[str, Any]) -> T:
    """Build a frozen dataclass from its `asdict` form.

    Raises:
        TypeError: an unknown or missing field.
    """
    hints = get_type_hints(kind)
    built: dict[str, Any] = {}
    for name, value in values.items():
        hint = hints.get(name)
        if isinstance(hint, type) and hasattr(hint, "__dataclass_fields__"):
            value = read_dataclass(hint, value)
        built[name] = tuple(value) if isinstance(value, list) else value
    return kind(**built)


def _with_unmentioned(policy: dict[str, Any]) -> dict[str, Any]:
    return {**policy, **{part: {**values, **policy[part]} for part, values in UNMENTIONED.items()}}


def _require(path: Path, names: Iterable[str]) -> None:
    for name in names:
        if not (path / name).is_file():
            why = "the checkpoint was not finished" if name == COMPLETE else "the checkpoint is damaged"
            raise CheckpointError(f"{path / name}: missing, so {why}; choose another or train again")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds {type(values).__name__}, expected an object")
    return values
