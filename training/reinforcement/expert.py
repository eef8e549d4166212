"""An expert that was learned: a small network from the simulation's state to an action, and its files.

EXPERT/config.json         task, widths, where it comes from
EXPERT/model.safetensors   its weights, which execute nothing when they are read

K numbers of the state, A actions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from configs.disk import whole_folder
from configs.reading import parse_json
from envs.task import ActionScale, Env, TaskSpec
from envs.wrappers import state_of
from training.data.episodes import checksum
from vla_policy.layers import multi_layer

CONFIG, WEIGHTS = "config.json", "model.safetensors"
EXPERT = "expert"  # what the folder is called in that of a run
LARGEST = 10_000  # width of a layer


class ExpertError(ValueError):
    """There is no expert in this folder, or none for this task; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """An expert's network.

    Args:
        task: that it was learned in.
        widths: of its layers, from the K numbers of the state to the A of the action.
        weights: of its linear layers, "0.weight", "0.bias", "1.weight", …
        origin: settings, steps and success, for people.
    """

    task: str
    widths: tuple[int, ...]
    weights: Mapping[str, Tensor]
    origin: Mapping[str, Any]


class LearnedExpert:
    """Acts as it learned to, the same in the same state: `(env, info) -> action (A,)`, in the bounds of the task."""

    reads_target = False  # it looks at the environment's state, which tells what is meant

    def __init__(self, learned: Learned) -> None:
        self._widths = learned.widths
        self._network = multi_layer(list(learned.widths))
        layers = [each for each in self._network if isinstance(each, torch.nn.Linear)]
        with torch.no_grad():
            for i, layer in enumerate(layers):
                layer.weight.copy_(learned.weights[f"{i}.weight"])
                layer.bias.copy_(learned.weights[f"{i}.bias"])

    @torch.no_grad()
    def __call__(self, env: Env, info: dict[str, Any]) -> np.ndarray:
        action: np.ndarray = self._network(torch.from_numpy(state_of(env))).tanh().numpy()
        return ActionScale(env.action_space).to_task(action)


def save_expert(learned: Learned, path: Path) -> None:
    """Write an expert's folder; the one before is replaced once this one is whole.

    Raises:
        DiskFullError: there is no room for it.
    """
    described = {"task": learned.task, "widths": list(learned.widths), "origin": dict(learned.origin)}
    with whole_folder(path) as partial:
        save_file({name: value.contiguous() for name, value in learned.weights.items()}, partial / WEIGHTS)
        (partial / CONFIG).write_text(json.dumps(described, indent=2) + "\n")


def find_expert(name: str) -> Path:
    """The folder of an expert, given by its own path or by that of the run that learned it."""
    path = Path(name)
    return path / EXPERT if (path / EXPERT / CONFIG).is_file() else path


def expert_print(name: str) -> str:
    """Twelve hexadecimal digits that change with any of an expert's weights.

    Raises:
        ExpertError: there are none.
    """
    file = find_expert(name) / WEIGHTS
    if not file.is_file():
        raise ExpertError(f"{file}: missing; name the folder of `vla rl`, or leave the expert out for the scripted one")
    return checksum(file)[:12]


def load_expert(name: str, spec: TaskSpec) -> LearnedExpert:
    """The expert in a folder, for this task.

    Raises:
        ExpertError: missing or damaged files, or another task's.
    """
    path = find_expert(name)
    expert_print(name)
    try:
        described = parse_json((path / CONFIG).read_text())
        task, widths = described["task"], tuple(described["widths"])
        if len(widths) < 2 or not all(type(width) is int and 1 <= width <= LARGEST for width in widths):
            raise ValueError(f"widths {list(widths)} must be two or more whole numbers from 1 to {LARGEST}")
        weights = load_file(path / WEIGHTS)
        for i, (before, after) in enumerate(pairwise(widths)):  # before a network of such a size is made
            for name, expected in ((f"{i}.weight", (after, before)), (f"{i}.bias", (after,))):
                if tuple(weights[name].shape) != expected:
                    raise ValueError(f"{name} is {tuple(weights[name].shape)}, expected {expected}")
        if not all(bool(value.isfinite().all()) for value in weights.values()):
            raise ValueError("some weights are not finite")
        learned = Learned(task=str(task), widths=widths, weights=weights, origin={})
        expert = LearnedExpert(learned)
    except (OSError, KeyError, TypeError, AttributeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ExpertError(f"{path}: not an expert ({' '.join(str(error).split())}); learn it again") from None
    if learned.task != spec.name:
        raise ExpertError(f"{path}: learned {learned.task!r}, and cannot demonstrate {spec.name!r}")
    if widths[-1] != len(spec.action_names):
        raise ExpertError(f"{path}: gives {widths[-1]} actions, {spec.name!r} takes {len(spec.action_names)}")
    return expert
