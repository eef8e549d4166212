"""Measures what a change of structure must leave as it is, and compares it with what an earlier version gave.

    python tests/unchanged/measure.py --out now.json
    python tests/unchanged/measure.py --compare tests/unchanged/before.json now.json

For every named run: checksums of a few demonstrations, and the loss of each of the first 20 training steps on them. For
every policy that ships: the outcome, length, error and box overlap of 50 unseen scenes of each of its tasks. All of it
by the commands a user has, one thread, so that two versions of the project on one machine give equal numbers or differ.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RUNS = ("reach", "track", "track_motion", "track_occlusion", "track_event")
POLICIES = {
    "default": ("reach", "track", "track_motion"),
    "track_occlusion": ("track_occlusion",),
    "track_event": ("track_event",),
}
DEMONSTRATIONS = 10
STEPS = 20
SEEDS = 50
COMPARED = ("seed", "success", "steps", "instruction", "target", "mean_error_m", "box_iou", "failure")


def measure(vla: list[str], runs: tuple[str, ...] = RUNS, seeds: int = SEEDS) -> dict[str, Any]:
    """Losses and data of `runs`, and outcomes of the policies that ship; `vla` is the command and its first words."""
    found: dict[str, Any] = {"data": {}, "losses": {}, "outcomes": {}}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for run in runs:
            data, out = folder / "data" / run, folder / "train" / run
            _run(vla, "collect", "--config", run, f"--collect.episodes={DEMONSTRATIONS}", "--out", str(data))
            found["data"][run] = _checksums(data / run / "header.json")
            limits = [f"--train.steps={STEPS}", "--train.log_every=1", "--train.threads=1", "--train.device=cpu"]
            _run(vla, "train", "--config", run, *limits, "--data", str(data), "--out", str(out))
            rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
            found["losses"][run] = [row["loss"] for row in rows]
        for policy, tasks in POLICIES.items() if seeds else ():
            out = folder / "eval" / policy
            chosen = [f"--tasks={','.join(tasks)}", f"--episodes={seeds}", "--controls=none", "--videos=0"]
            _run(vla, "eval", policy, *chosen, "--out", str(out))
            results = json.loads((out / "results.json").read_text())
            for task in tasks:
                episodes = results["tasks"][task]["conditions"]["policy"]["results"]
                found["outcomes"][f"{policy} on {task}"] = [{k: e[k] for k in COMPARED} for e in episodes]
    return found


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs, a line each: which run's data or losses, and which seeds of which policy."""
    found = []
    for run, files in before["data"].items():
        changed = [name for name, checksum in files.items() if now["data"].get(run, {}).get(name) != checksum]
        if changed:
            found.append(f"data of {run}: {', '.join(changed)}")
    for run, losses in before["losses"].items():
        later = now["losses"].get(run)
        if later != losses:
            found.append(f"losses of {run}: step {STEPS} was {losses[-1]}, is {later[-1] if later else None}")
    for name, episodes in before["outcomes"].items():
        later = {episode["seed"]: episode for episode in now["outcomes"].get(name, ())}
        differing = [e["seed"] for e in episodes if later.get(e["seed"]) != e]
        turned = [e["seed"] for e in episodes if later.get(e["seed"], {}).get("success") != e["success"]]
        if differing:
            found.append(f"{name}: {len(differing)} of {len(episodes)} scenes differ, {len(turned)} in success")
    return found


def _checksums(header: Path) -> dict[str, str]:
    files: dict[str, dict[str, Any]] = json.loads(header.read_text())["files"]
    return {name: str(entry["sha256"]) for name, entry in files.items()}


def _run(vla: list[str], *arguments: str) -> None:
    print("vla", *arguments, file=sys.stderr, flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*vla, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment)


def main() -> int:
    parser = argparse.ArgumentParser(description="what a change of structure must leave as it is")
    parser.add_argument("--vla", default="vla", help="the command to measure")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "NOW"))
    parsed = parser.parse_args()
    if parsed.compare:
        before, now = (json.loads(path.read_text()) for path in parsed.compare)
        lines = differences(before, now)
        print("\n".join(lines) or "equal: data, losses and outcomes")
        return bool(lines)
    found = measure(shlex.split(parsed.vla))
    text = json.dumps(found, indent=1)
    if parsed.out:
        parsed.out.write_text(text + "\n")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
