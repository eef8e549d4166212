"""The model card of a published checkpoint: read from the checkpoint and from an evaluation of it."""

from __future__ import annotations

import json
from typing import Any

import yaml

from eval.report.figures import rate_and_interval
from eval.results import POLICY, Results
from vla_policy.checkpoint import Checkpoint
from vla_policy.hub import HUB

LIBRARY = "vla_policy"
TAGS = ("robotics", "vision-language-action", "imitation-learning")


def write_card(checkpoint: Checkpoint, repo: str, results: Results | None, licence: str) -> str:
    """The text of README.md.

    Args:
        repo: owner/name.
        results: an evaluation of these weights; the card says so where there is none.
        licence: its identifier on the Hub, such as "mit".
    """
    parts = [_heading(checkpoint, repo, licence), _usage(checkpoint, repo), _results(results, repo)]
    return "\n".join([*parts, _interface(checkpoint), _training(checkpoint), _limits(licence)])


def _heading(checkpoint: Checkpoint, repo: str, licence: str) -> str:
    front = {
        "license": licence,
        "library_name": LIBRARY,
        "pipeline_tag": "robotics",
        "tags": [*TAGS, *checkpoint.purpose.tasks],
    }
    count = sum(parameter.numel() for parameter in checkpoint.policy.parameters())
    tasks = ", ".join(f"`{task}`" for task in checkpoint.purpose.tasks)
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {repo.split('/')[1]}\n\n"
        f"A vision-language-action policy of {count / 1e6:.2f} M parameters for {tasks}, in simulation.\n"
        "It sees camera pictures, reads an instruction, and moves a robot.\n"
    )


def _usage(checkpoint: Checkpoint, repo: str) -> str:
    name, task = f"{HUB}{repo}", checkpoint.purpose.tasks[0]
    return (
        "## Use\n\n```bash\n"
        f"vla eval {name} --tasks {task} --episodes 200\nvla rollout {name} --task {task} --video out.mp4\n```\n\n"
        f"`{name}@COMMIT` takes one state of it for good. Weights are safetensors; nothing is executed on loading.\n"
    )


def _results(results: Results | None, repo: str) -> str:
    if results is None:
        return "## Results\n\nNo evaluation was published with these weights.\n"
    tasks = list(results.tasks)
    conditions = list(dict.fromkeys(name for task in results.tasks.values() for name in task.conditions))
    lines = [
        f"| success (95 % interval) | {' | '.join(f'`{task}`' for task in tasks)} |",
        f"|---|{'---:|' * len(tasks)}",
    ]
    for name in conditions:
        cells = []
        for task in tasks:
            found = results.tasks[task].conditions.get(name)
            cells.append("" if found is None else rate_and_interval(found.success_rate, found.low, found.high))
        label = f"**{name}**" if name == POLICY else name.replace("_", " ")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    episodes = max((c.episodes for task in results.tasks.values() for c in task.conditions.values()), default=0)
    controls = ",".join(name for name in conditions if name != POLICY) or "none"
    options = f"--tasks {','.join(tasks)} --episodes {episodes} --seed {results.seed} --controls {controls}"
    criteria = [f"- `{task}`: {says}." for task, says in results.settings.get("criteria", {}).items() if task in tasks]
    return "\n".join(
        [
            "## Results\n",
            *lines,
            f"\nUp to {episodes} episodes a condition, with seeds that training cannot reach; Wilson intervals.",
            f"Drawn by {results.gl_renderer or 'an unknown renderer'}, judged {results.created[:10]}.",
            "Every episode is in [results.json](results.json). The same again:\n",
            f"```bash\nvla eval {HUB}{repo} {options}\n```\n",
            *(["What counts as success:\n", *criteria, ""] if criteria else []),
        ]
    )


def _interface(checkpoint: Checkpoint) -> str:
    names, config, shapes = checkpoint.interface, checkpoint.policy.config, checkpoint.policy.shapes
    rate = "a rate that was not noted" if names.control_hz is None else f"{names.control_hz:g} Hz"
    return (
        "## Robot\n\n"
        f"- sees: cameras {', '.join(names.cameras)}, {shapes.size} x {shapes.size} pixels, of "
        f"{', '.join(map(str, config.ages))} control steps before now\n"
        f"- feels: {', '.join(names.agent_pos_names)}\n"
        f"- moves: {', '.join(names.action_names)}, in [-1, 1], at {rate}\n"
    )


def _training(checkpoint: Checkpoint) -> str:
    told = checkpoint.provenance
    lines = ["## Training\n"]
    data = told.get("data")
    for part in data if isinstance(data, list) else []:
        if isinstance(part, dict):
            sha = str(part.get("pixels_sha256") or "")[:12]
            lines.append(
                f"- data: {part.get('episodes', '?')} episodes, {part.get('steps', '?')} steps of "
                f"`{part.get('task', '?')}`{f' (pictures {sha})' if sha else ''}"
            )
    for key, label in (("commit", "code"), ("created", "made"), ("versions", "versions")):
        if told.get(key):
            lines.append(f"- {label}: {_plain(told[key])}")
    settings = told.get("settings")
    train = settings.get("train") if isinstance(settings, dict) else None
    if isinstance(train, dict):
        arguments = " ".join(f"--train.{name} {_plain(value)}" for name, value in train.items() if value is not None)
        lines.append(f"\n```bash\nvla train {arguments}\n```\n")
        lines.append("The structure of the network is in config.json, all of its making in provenance.json.")
    return "\n".join([*lines, ""])


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    return value if isinstance(value, str) else json.dumps(value)


def _limits(licence: str) -> str:
    return (
        "## Limits\n\nLearned and judged in simulation: the figures say nothing about a real robot. Words, colours and "
        f"scenes beyond those of\nits training are not its strength.\n\nLicence: {licence}.\n"
    )
