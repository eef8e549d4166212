"""`vla export`: a policy as files that other programs run, and how near they come to it."""

from __future__ import annotations

import json
import platform
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.export import ExportConfig
from configs.options import parse, plain_parser
from envs.task import find_task, make_task, use_task_modules
from eval.results import write_whole
from training.lock import hold_file
from training.progress import Progress

if TYPE_CHECKING:
    from vla_policy.checkpoint import Checkpoint
    from vla_policy.export.graphs import Units

RESULTS = "check.json"


def export(arguments: list[str]) -> int:
    parser = plain_parser("export")
    parser.add_argument("checkpoint", type=str, help="checkpoint folder, or the name of a policy that ships")
    parser.add_argument("--out", type=str, default="runs/export", help="folder for the files")
    parser.add_class_arguments(ExportConfig, as_group=True, fail_untyped=True)
    words = "datasets of `vla collect`, with commas: compare what was written with the policy, and say what both take"
    parser.add_argument("--check", type=tuple[str, ...], default=(), help=words)
    parsed = parse(parser, arguments)
    use_task_modules(filter(None, [parsed.task_module]))
    config = ExportConfig(**{item.name: getattr(parsed, item.name) for item in fields(ExportConfig)})
    from eval.export_check import check_fit
    from training.data.episodes import open_dataset
    from vla_policy.checkpoint import given_name, load_checkpoint, resolve_checkpoint, weights_digest
    from vla_policy.export.folder import DESCRIPTION, check_folder, export_checkpoint

    path, out = resolve_checkpoint(parsed.checkpoint), Path(parsed.out)
    checkpoint, datasets = load_checkpoint(path), [open_dataset(Path(name)) for name in parsed.check]
    for data in datasets:
        check_fit(checkpoint, data)
    units = _units(checkpoint, config.task)
    check_folder(out)
    with hold_file(out):
        export_checkpoint(checkpoint, weights_digest(path), out, config, units)
        written = sorted(out.rglob("*"), key=lambda file: (file.name != DESCRIPTION, file))
        print("\n".join(str(file) for file in written if file.is_file()))
        if checkpoint.policy.encoder.grounded_frames == 1:
            print("no stream: this policy sees the newest frame alone, and there is nothing to keep")
        return check(checkpoint, given_name(path), out, datasets, config) if datasets else 0


def check(checkpoint: Checkpoint, name: str, out: Path, datasets: list[Any], config: ExportConfig) -> int:
    """Compare, say what came out, and keep it beside the export; the exit code is 1 where too much differs."""
    from eval.acting import of_threads
    from eval.export_check import TOLERANCE, check_export, largest_difference
    from vla_policy.export.folder import DESCRIPTION

    with Progress("check", config.samples, "observations") as progress, of_threads(config.threads):
        found = check_export(checkpoint, out, datasets, config.samples, lambda done, _: progress.update(done))
    described = json.loads((out / DESCRIPTION).read_text())
    kept = {name: described[name] for name in ("format", "weights_sha256", "versions")}
    results = {"checkpoint": name, **kept, "processor": platform.processor() or platform.machine(), **found}
    write_whole(out / RESULTS, json.dumps(results, indent=2) + "\n")
    print(f"policy: {found['policy']['milliseconds']} ms a decision; threads: {found['threads']}")
    for graph, one in found["graphs"].items():
        worst = max(one["largest_difference"].values())
        rate = f"{one['milliseconds']} ms a decision, {one['rate_over_policy']} times the policy's rate"
        print(f"{graph}: {found['observations']} observations, at most {worst:.1e} off; {rate}")
    if largest_difference(found) <= TOLERANCE:
        return 0
    print(f"differs by more than {TOLERANCE}; see {out / RESULTS}")
    return 1


def _units(checkpoint: Checkpoint, task: str) -> Units:
    """Of the actions that leave: the task's own, or [-1, 1] where none is named.

    Raises:
        ValueError: the task is unknown or of another robot.
    """
    from configs.interface import check_policy_serves
    from envs.task import ActionScale
    from vla_policy.export.graphs import Units

    if not task:
        return Units.plain(checkpoint.purpose.action_names)
    spec = find_task(task)
    check_policy_serves(checkpoint.interface, spec.interface, task, ", ".join(checkpoint.purpose.tasks))
    env = make_task(task, cameras=checkpoint.policy.config.cameras, size=checkpoint.policy.shapes.size)
    scale = ActionScale(env.action_space)
    env.close()
    low, high = (tuple(float(x) for x in bounds) for bounds in (scale.low, scale.high))
    return Units(names=spec.action_names, low=low, high=high)
