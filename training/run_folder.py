"""The folder of a training run: what it holds, whether it is finished, and whether it is the run that is asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from envs.episode import Dataset
from training.config import TrainConfig, TrainingError
from training.provenance import fingerprint
from training.state import has_state
from vla_policy.checkpoint import COMPLETE
from vla_policy.config import PolicyConfig

CHECKPOINT = "checkpoint"
CONFIG = "config.json"
STATE = "state"


def describe(policy_config: PolicyConfig, config: TrainConfig, datasets: Sequence[Dataset]) -> dict[str, Any]:
    """What decides a run's weights, as its `config.json` holds it: settings, and the fingerprint of each dataset."""
    data = {f"dataset {i} ({d.header['task']})": fingerprint(d) for i, d in enumerate(datasets)}
    return {"policy": asdict(policy_config), "train": asdict(config), "data": data}


def read_described(out: Path) -> dict[str, Any]:
    """What `describe` said of the run in this folder when it began.

    Raises:
        TrainingError: there is nothing readable.
    """
    try:
        described: dict[str, Any] = json.loads((out / CONFIG).read_text())
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
    now = json.loads(json.dumps(described))
    for section, values in now.items():
        old = before.get(section, {})
        changed = [k for k in {**old, **values} if values.get(k) != old.get(k)]
        if changed:
            key = changed[0]
            raise TrainingError(
                f"{out}: {section}.{key} was {old.get(key)!r} and is now {values.get(key)!r}; "
                f"give the same {'data' if section == 'data' else 'settings'} again, or choose another --out"
            )


def check_folder(out: Path, resume: bool, described: dict[str, Any]) -> None:
    if has_state(out / STATE):
        if not resume:
            raise TrainingError(f"{out}: holds a run already; add --resume to go on with it, or choose another --out")
        check_same(out, described)
    elif (out / CHECKPOINT).exists():
        raise TrainingError(f"{out}: holds a finished run, which cannot be gone on with; choose another --out")
    elif resume:
        raise TrainingError(f"{out}: no saved state to resume; train without --resume")
