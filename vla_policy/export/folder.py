"""The folder of an export: the graphs, the tokenizer, and `export.json`, which says all that a program must know to run
them.

| in `export.json` | what it is |
|---|---|
| `format`, `graphs` | by graph its `file`, and its `inputs` and `outputs`: name → `shape` and `dtype` |
| `cameras`, `size` | names in the order of the pictures, and their pixels a side |
| `frames`, `frame_ages` | how many frames a decision sees, and how many control steps before now each was seen |
| `control_hz` | control steps per second, null where the demonstrations did not say |
| `execute` | control steps to be executed of a chunk before the next decision |
| `action_names`, `action_low`, `action_high` | of the actions that leave |
| `agent_pos_names` | of proprioception, in its order |
| `tasks` | that the policy was trained for |
| `tokenizer` | its `file`; `max_words`, the length to which ids are cut or filled, and `pad`, with what |
| `weights_sha256` | of the checkpoint's `model.safetensors` |
| `versions` | of what wrote it |
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from configs.disk import whole_folder
from configs.export import ExportConfig
from configs.reading import parse_json
from vla_policy.checkpoint import Checkpoint
from vla_policy.export.formats import BATCH, FORMATS, Run, trace
from vla_policy.export.graphs import Units, graphs_of
from vla_policy.tokenizer import PAD

SCHEMA_VERSION = 1
DESCRIPTION = "export.json"


def export_checkpoint(checkpoint: Checkpoint, weights: str, folder: Path, config: ExportConfig, units: Units) -> None:
    """Write a policy into a folder; an earlier export there is replaced, once the new one is whole.

    Args:
        weights: checksum of the checkpoint's weights.
        units: of the actions that leave.

    Raises:
        ValueError: the folder holds something else, a package is missing, or the policy cannot be exported.
    """
    check_folder(folder)
    format = FORMATS[config.format]
    format.check(config.format)
    with whole_folder(folder) as partial:
        graphs: dict[str, Any] = {}
        for name, graph in graphs_of(checkpoint, units).items():
            inputs = graph.inputs()
            program, outputs = trace(graph, inputs)
            file = f"{name}{format.suffix}"
            format.write(program, list(inputs), list(outputs), partial / file)
            graphs[name] = {"file": file, "inputs": _described(inputs), "outputs": _described(outputs)}
        described = _description(checkpoint, weights, config, units, graphs)
        checkpoint.tokenizer.save(partial)
        (partial / DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n")


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier export.

    Raises:
        ValueError: it does, or is a file.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / DESCRIPTION).is_file():
        raise ValueError(f"{folder}: holds something else than an export; choose another folder")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file, expected a folder to export into; choose another place")


def open_graphs(folder: Path, threads: int) -> tuple[dict[str, Any], dict[str, Run]]:
    """What `export.json` says, and what runs each graph, on so many threads.

    Raises:
        ValueError: there is no export here.
    """
    file = folder / DESCRIPTION
    if not file.is_file():
        raise ValueError(f"{file}: missing, so this is no export; make one with `vla export`")
    described = parse_json(file.read_text())
    kind = FORMATS[described["format"]]
    return described, {name: kind.open(folder / one["file"], threads) for name, one in described["graphs"].items()}


def _description(
    checkpoint: Checkpoint, weights: str, config: ExportConfig, units: Units, graphs: dict[str, Any]
) -> dict[str, Any]:
    policy, purpose = checkpoint.policy, checkpoint.purpose
    return {
        "schema_version": SCHEMA_VERSION,
        "format": config.format,
        "graphs": graphs,
        "cameras": policy.config.cameras,
        "size": policy.shapes.size,
        "frames": policy.encoder.grounded_frames,
        "frame_ages": policy.config.ages[-policy.encoder.grounded_frames :],
        "control_hz": purpose.control_hz,
        "execute": min(config.execute, policy.config.head.chunk),
        "action_names": units.names,
        "action_low": units.low,
        "action_high": units.high,
        "agent_pos_names": purpose.agent_pos_names,
        "tasks": purpose.tasks,
        "tokenizer": {
            "file": checkpoint.tokenizer.FILES[0],
            "max_words": policy.config.language.max_words,
            "pad": PAD,
        },
        "weights_sha256": weights,
        "versions": {name: version(name) for name in ("torch", *FORMATS[config.format].needs)},
    }


def _described(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {
        name: {"shape": [BATCH, *value.shape[1:]], "dtype": str(value.dtype).removeprefix("torch.")}
        for name, value in tensors.items()
    }
