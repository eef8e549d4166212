"""A vision-language-action policy: encoders, fusion, grounding, action heads. PyTorch only; no simulator.

The public names below are imported when they are first used: `import vla_policy` loads no torch.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from configs.evaluation import RunnerConfig
    from configs.policy import PolicyConfig
    from vla_policy.checkpoint import (
        DEFAULT_POLICY,
        Checkpoint,
        CheckpointError,
        Purpose,
        load_checkpoint,
        resolve_checkpoint,
        save_checkpoint,
    )
    from vla_policy.contract import ActionChunk, Aux, Batch, Observation, Shapes
    from vla_policy.policy import VLAPolicy
    from vla_policy.runner import PolicyRunner
    from vla_policy.tokenizer import Reading, TextTokenizer

__all__ = [
    "DEFAULT_POLICY",
    "ActionChunk",
    "Aux",
    "Batch",
    "Checkpoint",
    "CheckpointError",
    "Observation",
    "PolicyConfig",
    "PolicyRunner",
    "Purpose",
    "Reading",
    "RunnerConfig",
    "Shapes",
    "TextTokenizer",
    "VLAPolicy",
    "load_checkpoint",
    "resolve_checkpoint",
    "save_checkpoint",
]
# Where each of them is.
_MODULES = {
    "configs.evaluation": ("RunnerConfig",),
    "configs.policy": ("PolicyConfig",),
    "vla_policy.checkpoint": (
        "DEFAULT_POLICY",
        "Checkpoint",
        "CheckpointError",
        "Purpose",
        "load_checkpoint",
        "resolve_checkpoint",
        "save_checkpoint",
    ),
    "vla_policy.contract": ("ActionChunk", "Aux", "Batch", "Observation", "Shapes"),
    "vla_policy.policy": ("VLAPolicy",),
    "vla_policy.runner": ("PolicyRunner",),
    "vla_policy.tokenizer": ("Reading", "TextTokenizer"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        near = difflib.get_close_matches(name, __all__, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # the next access comes without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
