"""Writes a checkpoint as a folder that LeRobot loads: `python -m eval.lerobot_plugin.folder default --out DIR`.

| file | content |
|---|---|
| `config.json` | what LeRobot's own configuration says, for one task: features, frames, chunk, actions |
| `model.safetensors` | the weights, as LeRobot names them |
| `policy_preprocessor.json`, `policy_postprocessor.json` | they change nothing: the normaliser is in the weights |
| `vla_policy/` | the checkpoint: structure, tokenizer, provenance |
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from configs.disk import whole_folder
from configs.interface import check_policy_serves
from configs.options import parse
from envs.task import find_task, use_task_modules
from vla_policy.checkpoint import Checkpoint, load_checkpoint, resolve_checkpoint, save_checkpoint

INSIDE = "vla_policy"


def write_lerobot_policy(checkpoint: Checkpoint, task: str, out: Path) -> None:
    """Write a policy for LeRobot, for one task: it then gives that task's actions alone.

    Raises:
        ValueError: the policy is not for this task, or there is something already.
    """
    from safetensors.torch import save_file

    spec = find_task(task)
    check_policy_serves(checkpoint.interface, spec.interface, task, ", ".join(checkpoint.purpose.tasks))
    if out.exists():
        raise ValueError(f"--out {out}: is there already; choose another place, or remove it")
    weights = {f"model.{name}": value.contiguous() for name, value in checkpoint.policy.state_dict().items()}
    with whole_folder(out) as partial:
        save_checkpoint(checkpoint, partial / INSIDE)
        save_file(weights, partial / "model.safetensors")
        for name, content in {
            "config": _config(checkpoint, spec.action_names),
            "policy_preprocessor": _pipeline(
                "policy_preprocessor", "rename_observations_processor", "normalizer_processor"
            ),
            "policy_postprocessor": _pipeline("policy_postprocessor", "unnormalizer_processor"),
        }.items():
            (partial / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def _config(checkpoint: Checkpoint, actions: tuple[str, ...]) -> dict[str, Any]:
    config, shapes = checkpoint.policy.config, checkpoint.policy.shapes
    picture = {"type": "VISUAL", "shape": [3, shapes.size, shapes.size]}
    return {
        "type": "vla_policy",
        "n_obs_steps": config.frames,
        "input_features": {
            **{f"observation.images.{camera}": picture for camera in config.cameras},
            "observation.state": {"type": "STATE", "shape": [shapes.proprioception]},
        },
        "output_features": {"action": {"type": "ACTION", "shape": [len(actions)]}},
        "device": "cpu",
        "push_to_hub": False,
        "actions": list(actions),
        "cameras": list(config.cameras),
        "frame_ages": list(config.ages),
        "chunk": config.head.chunk,
    }


def _pipeline(name: str, *steps: str) -> dict[str, Any]:
    """Steps that change nothing; LeRobot's training gives them its own settings by their names."""
    unchanged: dict[str, Any] = {"features": {}, "norm_map": {}}
    settings: dict[str, dict[str, Any]] = {
        "rename_observations_processor": {"rename_map": {}},
        "normalizer_processor": unchanged,
        "unnormalizer_processor": unchanged,
        "device_processor": {"device": "cpu"},
    }
    listed = [{"registry_name": step, "config": settings[step]} for step in (*steps, "device_processor")]
    return {"name": name, "steps": listed}


def main(arguments: list[str]) -> int:
    parser = ArgumentParser(prog="python -m eval.lerobot_plugin.folder", description="A checkpoint as LeRobot's policy")
    parser.add_argument("checkpoint", type=str, help="checkpoint folder, or the name of a policy that ships")
    parser.add_argument("--task", type=str, default="track", help="task that it is for")
    parser.add_argument("--task-module", type=str, default="", help="module or .py file that registers tasks")
    parser.add_argument("--out", type=str, required=True, help="folder to write")
    try:
        parsed = parse(parser, arguments)
        use_task_modules(filter(None, [parsed.task_module]))
        write_lerobot_policy(load_checkpoint(resolve_checkpoint(parsed.checkpoint)), parsed.task, Path(parsed.out))
    except ValueError as error:
        print(f"vla: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(parsed.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
