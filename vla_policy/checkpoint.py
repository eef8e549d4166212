"""A checkpoint: one folder that holds all that is needed to act, and nothing that is executed on loading.

| file | content |
|---|---|
| `model.safetensors` | weights, with the normaliser's statistics as buffers |
| `config.json` | schema version, resolved `PolicyConfig`, `Shapes`, and what the policy was made for |
| `tokenizer.json` | the word tokenizer; or, with a pretrained text model: |
| `language/` | `tokenizer.json` and `config.json` of that model, whose weights are among the others |
| `provenance.json` | commit, data checksums, versions, seed, training settings |
| `COMPLETE` | written last, with the checksum of the weights; a folder without it is refused |
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import PyTorchModelHubMixin, snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from configs.decode import decode
from configs.disk import DiskFullError, filling, require_room, whole_folder
from configs.encoder import SMALL
from configs.interface import RATES, RobotInterface
from configs.policy import PolicyConfig
from configs.reading import parse_json
from vla_policy.contract import Shapes
from vla_policy.hub import FILES, HUB, fetch, from_cache, pinned_name
from vla_policy.policy import VLAPolicy
from vla_policy.tokenizer import TOKENIZERS, TextTokenizer

SCHEMA_VERSION = 2
WEIGHTS = "model.safetensors"
COMPLETE = "COMPLETE"
COMPILED = "_orig_mod"  # how torch.compile calls what it wraps
SHIPPED = Path(__file__).parent / "assets"  # a folder for each policy that ships
DEFAULT_POLICY = SHIPPED / "default"
NOTHING = ("none",)  # name of the action and of the proprioception that an imported policy has for form's sake
LARGEST = 10_000_000  # of a policy's shapes, a vocabulary's words for one
T = TypeVar("T")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file, what was found and what to do."""


@dataclass(frozen=True, kw_only=True)
class Purpose:
    """What a policy was trained for: task names, the names of its action and proprioception dimensions, control steps
    per second, None where the demonstrations did not say, and whether it learned where to look.
    """

    tasks: tuple[str, ...]
    action_names: tuple[str, ...]
    agent_pos_names: tuple[str, ...]
    control_hz: float | None = None
    boxes: bool = True

    def __post_init__(self) -> None:
        for name in ("tasks", "action_names", "agent_pos_names"):
            values = getattr(self, name)
            if not values or not all(values) or len(set(values)) != len(values):
                raise ValueError(f"{name} {list(values)} must be one or more names, each once")
        if self.control_hz is not None and not RATES[0] <= self.control_hz <= RATES[1]:
            raise ValueError(f"control_hz {self.control_hz} must be a number from {RATES[0]:g} to {RATES[1]:g}")


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
        given = {name: value for name, value in kwargs.items() if name in known}
        return load_checkpoint(Path(snapshot_download(model_id, allow_patterns=list(FILES), **given)))


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint folder; an existing checkpoint is replaced as a whole, once the new one is whole.

    Into a folder that holds anything else, only a checkpoint's own files are written.
    """
    if path.is_dir() and any(path.iterdir()) and not (path / COMPLETE).is_file():
        _write_among_others(checkpoint, path)
        return
    with whole_folder(path) as partial:
        _write(checkpoint, partial)


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
    # A module that torch.compile wraps has its own name before those of its parameters.
    weights = {
        name.replace(f"{COMPILED}.", ""): value.detach().contiguous().cpu()
        for name, value in policy.state_dict().items()
    }
    require_room(folder / "model.safetensors", sum(value.nbytes for value in weights.values()), "the checkpoint")
    try:
        save_file(weights, folder / WEIGHTS)
    except SafetensorError as error:  # what it makes of a full disk
        raise DiskFullError(f"{folder / WEIGHTS}: not written ({error}); free some space") from None
    described = {
        "schema_version": SCHEMA_VERSION,
        "policy": asdict(policy.config),
        "shapes": asdict(policy.shapes),
        "purpose": asdict(checkpoint.purpose),
    }
    with filling(folder):
        (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n")
        checkpoint.tokenizer.save(folder)
        policy.describe(folder)
        (folder / "provenance.json").write_text(json.dumps(checkpoint.provenance, indent=2) + "\n")
        (folder / COMPLETE).write_text(json.dumps({"model.safetensors": weights_digest(folder)}) + "\n")


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
    _require(path, (COMPLETE, "config.json", WEIGHTS, "provenance.json"))
    described = _read_json(path / "config.json")
    version = described.get("schema_version")
    if version not in (1, SCHEMA_VERSION) or isinstance(version, bool):
        raise CheckpointError(
            f"{path / 'config.json'}: schema_version {version!r}, expected {SCHEMA_VERSION} or 1; "
            "it may come from a newer version of vla_policy"
        )
    try:
        policy_settings = described["policy"] if version == SCHEMA_VERSION else upgrade_policy(described["policy"])
        config = decode(PolicyConfig, as_meant(policy_settings))
        shapes = decode(Shapes, described["shapes"])
        purpose = decode(Purpose, described["purpose"], "purpose")
        _check_fit(config, shapes, purpose)
        kind = TOKENIZERS.get(config.language.name, TextTokenizer)
        _require(path, kind.FILES)
        policy = VLAPolicy(config, shapes, saved=path)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, MemoryError, OverflowError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path / 'config.json'}: does not describe a policy ({reason})") from None
    try:
        loaded = load_file(path / WEIGHTS)
        policy.load_state_dict(loaded)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()  # torch begins with a headline
        weights = path / WEIGHTS
        raise CheckpointError(
            f"{weights}: not this policy's weights, or those of another version; train again ({reason})"
        ) from None
    broken = [name for name, value in loaded.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise CheckpointError(f"{path / WEIGHTS}: {broken[0]!r} has values that are not finite; train again")
    if not (policy.normaliser.std > 0).all():
        raise CheckpointError(f"{path / WEIGHTS}: 'normaliser.std' has values that are not above 0; train again")
    _check_weights(path)
    try:
        tokenizer = kind.load(path, config.language.max_words)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    if tokenizer.size != shapes.vocabulary:
        raise CheckpointError(
            f"{path / kind.FILES[0]}: has {tokenizer.size} entries, expected the {shapes.vocabulary} of the policy's "
            "embedding; it is of another checkpoint"
        )
    return Checkpoint(policy.eval(), tokenizer, purpose, _read_json(path / "provenance.json"))


def _check_fit(config: PolicyConfig, shapes: Shapes, purpose: Purpose) -> None:
    """Refuse sizes that cannot be meant, before a network of them is made.

    Raises:
        ValueError: what is wrong with which.
    """
    for name, size in asdict(shapes).items():
        if not 1 <= size <= LARGEST:
            raise ValueError(f"shapes.{name}: got {size}, expected 1 to {LARGEST}")
    for name, got, expected, why in (
        ("frames", shapes.frames, config.frames, "policy.frames"),
        ("cameras", shapes.cameras, len(config.cameras), "the number of policy.cameras"),
        ("actions", shapes.actions, len(purpose.action_names), "the number of purpose.action_names"),
        ("proprioception", shapes.proprioception, len(purpose.agent_pos_names), "that of purpose.agent_pos_names"),
    ):
        if got != expected:
            raise ValueError(f"shapes.{name}: got {got}, expected {expected}, {why}")


def _check_weights(path: Path) -> None:
    """Compare the weights with the checksum that was written with them; earlier checkpoints have none.

    Raises:
        CheckpointError: they were changed or damaged.
    """
    if not (path / COMPLETE).read_bytes().strip():
        return
    stated = _read_json(path / COMPLETE).get("model.safetensors")
    if stated != weights_digest(path):
        raise CheckpointError(
            f"{path / 'model.safetensors'}: its checksum differs from {COMPLETE}; the file was changed or damaged, "
            "take another copy or train again"
        )


def resolve_checkpoint(name: str) -> Path:
    """The folder of a checkpoint given by its path or by that of the run that trained it, by the name of a policy that
    ships with the package, by its name on the Hub (`hf://owner/name`) or by its repository's folder in a Hub cache.

    Raises:
        HubError: the Hub does not have it.
    """
    if name in shipped_names():
        return SHIPPED / name
    if name.startswith(HUB):
        return fetch(name)
    path = Path(name)
    if cached := from_cache(path):
        return cached
    places = (path, path / "checkpoint", path / "train" / "checkpoint")
    return next((place for place in places if (place / COMPLETE).is_file()), path)


def shipped_names() -> list[str]:
    """Policies that ship with the package; `default` first."""
    names = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())
    return sorted(names, key=lambda name: name != DEFAULT_POLICY.name)


def weights_digest(path: Path) -> str:
    """SHA-256 of a checkpoint's weights, as hexadecimal digits."""
    with (path / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def given_name(path: Path) -> str:
    """What the user called a checkpoint: results are compared and published, and should name nobody's folders."""
    return path.name if path.parent == SHIPPED else pinned_name(path) or str(path)


# Version 1 held the settings of all variants of a part side by side: part → variant → its settings now and then.
FLAT: dict[str, dict[str, dict[str, str]]] = {
    "encoder": {
        "two_stream": {"temporal_channels": "temporal_channels", "streams": "streams"},
        "frame_lstm": {"layers": "temporal_layers"},
        "frame_transformer": {"layers": "temporal_layers"},
        "conv3d": {"layers": "temporal_layers", "kernel": "kernel"},
        "space_time_attention": {"layers": "temporal_layers", "attention": "attention"},
        "slow_fast": {
            "layers": "temporal_layers",
            "clip": "clip",
            "pick": "pick",
            "stride": "slow_stride",
            "fast": "fast",
        },
    },
    "language": {
        "transformer": {"layers": "layers"},
        "pretrained": {"source": "pretrained", "frozen": "frozen"},
    },
    "fusion": {
        "bidirectional": {"layers": "layers", "during": "during", "output": "output"},
        "cross_attention": {"layers": "layers", "direction": "direction", "output": "output"},
        "self_attention": {"layers": "layers", "output": "output"},
        "intermediate": {"interaction": "interaction", "position": "position", "output": "output"},
        "weighted": {"weights": "weights"},
        "vote": {"rule": "rule", "voters": "voters"},
    },
    "head": {
        "gaussian_mixture": {"components": "components"},
        "binned": {"bins": "bins"},
        "flow_matching": {"integration_steps": "integration_steps"},
    },
}


def is_flat(policy: dict[str, Any]) -> bool:
    """Whether these are the settings of a policy as version 1 wrote them."""
    return "heads" in policy


def upgrade_policy(flat: dict[str, Any]) -> dict[str, Any]:
    """The settings of a policy from version 1 of `config.json`, as version 2 has them.

    Settings that the policy did not use are left out. Before `fusion.during` there was, nothing was exchanged during
    encoding.

    Raises:
        KeyError, TypeError: this is not what version 1 wrote.
    """
    new = dict(flat)
    new["attention_heads"] = new.pop("heads")
    for part, variants in FLAT.items():
        if not isinstance(flat[part], dict):
            raise TypeError(f"{part} is {flat[part]!r}, expected a section with settings")
        old = {"during": "none", **flat[part]} if part == "fusion" else dict(flat[part])
        moved = {name for settings in variants.values() for name in settings.values()}
        new[part] = {name: value for name, value in old.items() if name not in moved}
        own = variants.get(old["name"], {})
        if own:
            new[part][old["name"]] = {name: old[then] for name, then in own.items() if then in old}
    encoder: dict[str, Any] = new["encoder"]
    timm = {name: encoder.pop(name) for name in ("stride", "weights", "frozen") if name in encoder}
    encoder["backbone"] = {"name": encoder.pop("backbone", SMALL)}
    encoder["backbone"] |= {name: encoder.pop(name) for name in ("channels", "layers") if name in encoder}
    if encoder["backbone"]["name"] != SMALL:
        encoder["backbone"]["timm"] = timm
    return new


def as_meant(policy: Any) -> Any:
    """The settings of a policy as they were meant when they were saved: what is not mentioned was not yet a setting,
    and may have another default by now. What is no section stays as it is, for `decode` to refuse.
    """
    grounding = policy.get("grounding") if isinstance(policy, dict) else None
    if isinstance(grounding, dict) and grounding.get("interval_weight") and "divergence" not in grounding:
        return {**policy, "grounding": {"divergence": "from_truth", **grounding}}
    return policy


def _require(path: Path, names: Iterable[str]) -> None:
    for name in names:
        if not (path / name).is_file():
            why = "the checkpoint was not finished" if name == COMPLETE else "the checkpoint is damaged"
            raise CheckpointError(f"{path / name}: missing, so {why}; choose another or train again")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = parse_json(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds {type(values).__name__}, expected an object")
    return values
