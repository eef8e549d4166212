"""The folder of a training run: what it holds, whether it is finished, and whether it is the run that is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from configs.policy import PolicyConfig
from configs.reading import parse_json
from configs.training import TrainConfig
from training.data.episodes import Dataset
from training.error import TrainingError
from training.provenance import fingerprint
from training.state import has_state
from vla_policy.checkpoint import COMPLETE, as_meant, is_flat, upgrade_policy

CHECKPOINT = "checkpoint"
CONFIG = "config.json"
STATE = "state"
CHANGES = "changes"  # in `config.json`: settings that were changed on the way
# Settings with which a run may go on otherwise than it began; see `changed`.
CHANGEABLE = tuple(
    f"train.{name}"
    for name in ("learning_rate", "final_rate", "warmup", "steps", "clip", "ema", "log_every", "save_every", "threads")
)


def describe(
    policy_config: PolicyConfig,
    config: TrainConfig,
    datasets: Sequence[Dataset],
    start: str = "",
    weights: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """What decides a run's weights, as its `config.json` holds it: settings, the fingerprint of each dataset, and that
    of the weights it began with, if these were another run's.
    """
    data = {f"dataset {i} ({d.header['task']})": fingerprint(d) for i, d in enumerate(datasets)}
    described = {"policy": asdict(policy_config), "train": asdict(config), "data": data}
    if weights is not None:
        described["weights"] = dict(weights)
    return {**described, "start": start} if start else described


def read_described(out: Path) -> dict[str, Any]:
    """What `describe` said of the run in this folder when it began.

    Raises:
        TrainingError: there is nothing readable.
    """
    try:
        described = parse_json((out / CONFIG).read_text())
        if not isinstance(described, dict):
            raise ValueError(f"holds {type(described).__name__}, expected an object")
        for name in ("policy", "train", "data"):
            if not isinstance(described.get(name, {}), dict):
                raise ValueError(f"{name} is {described[name]!r}, expected an object")
        changes = described.get(CHANGES, [])
        if not isinstance(changes, list) or not all(isinstance(each, dict) for each in changes):
            raise ValueError(f"{CHANGES} holds something else than a list of objects")
    except (OSError, ValueError) as error:
        raise TrainingError(f"{out / CONFIG}: not readable ({error}); train anew elsewhere") from None
    return described


def is_finished(out: Path) -> bool:
    """Whether the run in this folder has come to its end; its state is gone then, so that it cannot be resumed."""
    return (out / CHECKPOINT / COMPLETE).is_file() and not has_state(out / STATE)


def check_same(out: Path, described: dict[str, Any]) -> None:
    """Refuse the run in this folder unless it was made with these settings and data; see `describe`.

    Raises:
        TrainingError: what differs first, as it was and as it is now.
    """
    before = read_described(out)
    before.pop(CHANGES, None)  # what it has become counts, not how
    for key, was, now in _differences(before, described):
        raise _differs(out, key, was, now)


def changed(out: Path, described: dict[str, Any], change: Sequence[str]) -> list[dict[str, Any]]:
    """What is to be otherwise from here on in the run that is gone on with, each as `setting`, `was` and `now`; after
    what was changed before, as `config.json` holds it.

    Raises:
        TrainingError: something else differs, or is named that cannot be changed or is as before.
    """
    for name in change:
        if name not in CHANGEABLE:
            raise TrainingError(f"--change {name}: cannot be changed in a run; of a run, {', '.join(CHANGEABLE)} can")
    before = read_described(out)
    done: list[dict[str, Any]] = before.pop(CHANGES, [])
    found = list(_differences(before, described))
    for key, was, now in found:
        if key not in change:
            raise _differs(out, key, was, now, hint=key in CHANGEABLE)
    for name in change:
        if name not in [key for key, _, _ in found]:
            raise TrainingError(f"--change {name}: is {leaves(described).get(name)!r} as before; give another one")
    return [*done, *({"setting": key, "was": was, "now": now} for key, was, now in found)]


def _differences(before: dict[str, Any], described: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    old, now = leaves(before), leaves(described)
    return ((key, old.get(key), now.get(key)) for key in {**old, **now} if now.get(key) != old.get(key))


def _differs(out: Path, key: str, was: Any, now: Any, *, hint: bool = False) -> TrainingError:
    kind = "data" if key.startswith("data.") else "settings"
    named = f", name it with --change {key}" if hint else ""
    return TrainingError(
        f"{out}: {key} was {was!r} and is now {now!r}; give the same {kind} again{named}, or choose another --out"
    )


def leaves(described: dict[str, Any]) -> dict[str, Any]:
    """What a run rests on as one level, "policy.fusion.name" and so on, as it is read back from JSON.

    What is not mentioned did not exist when the run began, and is at its default, or at what was done before. The
    policy of a run that began before the settings of each variant were a section of their own is translated.

    Raises:
        TrainingError: such a policy's settings are incomplete.
    """
    usual = {"policy": asdict(PolicyConfig()), "train": asdict(TrainConfig())}
    policy = described.get("policy", {})
    if is_flat(policy):
        try:
            described = {**described, "policy": upgrade_policy(policy)}
        except (AttributeError, KeyError, TypeError) as error:
            raise TrainingError(
                f"the policy's settings are of an older version, and incomplete ({error}); train anew elsewhere"
            ) from None
    if policy:
        described = {**described, "policy": as_meant(described["policy"])}
    found: dict[str, Any] = {}
    for values in (usual, described):
        found |= _flat(json.loads(json.dumps(values)))
    return found


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def check_folder(
    out: Path, resume: bool, described: dict[str, Any], change: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Refuse a folder in which this run cannot begin or go on; returns what was changed on the way, see `changed`.

    Raises:
        TrainingError: what stands against it.
    """
    if change and not resume:
        raise TrainingError(f"--change {change[0]}: only a run that is gone on with can be changed; add --resume")
    if has_state(out / STATE):
        if not resume:
            raise TrainingError(f"{out}: holds a run already; add --resume to go on with it, or choose another --out")
        return changed(out, described, change)
    if (out / CHECKPOINT).exists():
        raise TrainingError(f"{out}: holds a finished run, which cannot be gone on with; choose another --out")
    if resume:
        raise TrainingError(f"{out}: no saved state to resume; train without --resume")
    return []
