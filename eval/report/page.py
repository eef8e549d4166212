"""Results for people: a Markdown table and one HTML file that needs no other."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from eval.controls import condition_title, describe, in_order
from eval.report.answers import answers, summary
from eval.report.figures import (
    NONE,
    centimetres,
    interval,
    number,
    p_value,
    percent,
    points,
    points_and_interval,
    rate_and_interval,
)
from eval.report.plots import condition_role, error_over_time, learning_curve_plot, success_bars
from eval.results import (
    POLICY,
    ConditionResult,
    EpisodeResult,
    Results,
    TaskResult,
    failure_counts,
    write_whole,
)
from eval.suites import Group, by_difficulty
from training.progress import brief

TEMPLATES = Path(__file__).with_name("templates")
VIDEO_TYPES = {".mp4": "video/mp4", ".webm": "video/webm", ".webp": "image/webp", ".gif": "image/gif"}


def markdown_table(results: Results) -> str:
    """One row for each condition of each task; differences in points, a dash where there is no number.

    The control rate is the policy's, measured apart: decisions a second that one robot would get on one CPU thread.
    """
    header = [
        "task",
        "condition",
        "success (95 % interval)",
        "against policy (95 % interval)",
        "error",
        "box IoU",
        "m_tIoU",
        "m_vIoU",
        "vIoU@0.3",
        "vIoU@0.5",
    ]
    header += ["control rate", "episodes", "invalid"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * 2 + "---:|" * (len(header) - 2)]
    for task_name, task in results.tasks.items():
        for name, c in in_order(task.conditions).items():
            cells = [
                task_name,
                condition_title(name),
                rate_and_interval(c.success_rate, c.low, c.high),
                points_and_interval(c.difference_to_policy),
            ]
            cells += [centimetres(c.mean_error_m), number(c.box_iou, 2), *_tube_measures(c), _control_rate(name, task)]
            cells += [str(c.episodes), str(c.invalid)]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def difficulty_table(results: Results) -> str:
    """One row for each difficulty and for both averages; empty where the tasks are not of several difficulties."""
    groups = by_difficulty(results)
    if not groups:
        return ""
    conditions = list(groups[-1].rates)
    header = ["difficulty", "tasks", *map(condition_title, conditions)]
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    for group in groups:
        cells = [group.name, str(group.tasks), *(_group_rate(group, name) for name in conditions)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _group_rate(group: Group, condition: str) -> str:
    found = group.rates[condition]
    return percent(found.rate) if found.interval is None else rate_and_interval(found.rate, *found.interval)


def write_report(
    results: Results,
    out_dir: str | Path,
    videos: Mapping[str, Path] | None = None,
    learning_curve: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """Write `report.html` into `out_dir`: one file with plots and videos inside it, and return its path.

    Args:
        videos: caption to file (.mp4, .webm, .webp, .gif). A caption of the form "task/condition/seed" is
            replaced by that episode's instruction and verdict.
        learning_curve: rows of the training log: `step`, `loss` and, if known, `seconds` and other losses.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(enabled_extensions=("j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = lambda text: text.replace(" %", "\u00a0%").replace("p <", "p\u00a0<")
    curve = learning_curve_plot(learning_curve) if learning_curve else None
    groups = by_difficulty(results)
    page = environment.get_template("report.html.j2").render(
        results=results,
        conditions=[condition_title(name) for name in groups[-1].rates] if groups else [],
        groups=[(g.name, g.tasks, [_group_rate(g, name) for name in groups[-1].rates]) for g in groups],
        tasks=[_task_view(name, task, results.settings) for name, task in results.tasks.items()],
        videos=[_video_view(key, Path(path), results) for key, path in (videos or {}).items()],
        learning_curve=Markup(curve) if curve else None,
        training=list(_flatten(learning_curve[-1])) if learning_curve else [],
        facts={
            "Checkpoint": [("path", results.checkpoint.path), *_flatten(results.checkpoint.provenance)],
            "Settings": [("seed", str(results.seed)), *_flatten(results.settings)],
            "Versions": [*_flatten(results.versions), ("OpenGL renderer", results.gl_renderer or NONE)],
        },
    )
    return write_whole(Path(out_dir) / "report.html", page)


def _task_view(name: str, task: TaskResult, settings: Mapping[str, Any]) -> dict[str, Any]:
    conditions = in_order(task.conditions)
    titles = {key: condition_title(key) for key in conditions}
    failures = {key: failure_counts(condition) for key, condition in conditions.items()}
    reasons = Counter[str]()
    for counts in failures.values():
        reasons.update(counts)
    control_hz = settings.get("control_hz")  # one number in results of an earlier version
    if isinstance(control_hz, Mapping):
        control_hz = control_hz.get(name)
    bars = success_bars(conditions, titles)
    errors = error_over_time(
        conditions,
        titles,
        control_hz=float(control_hz) if isinstance(control_hz, int | float) else None,
        tolerance_m=_of_task(settings, "tolerance_m", name, float),
    )
    main = task.conditions.get(POLICY)
    return {
        "name": name,
        "criterion": _of_task(settings, "criteria", name, str),
        "rate": percent(main.success_rate) if main and main.success_rate is not None else NONE,
        "summary": summary(name, task),
        "answers": answers(task),
        "bars": Markup(bars) if bars else None,
        "errors": Markup(errors) if errors else None,
        "rows": [_row(key, condition, task) for key, condition in conditions.items()],
        "reasons": [reason for reason, _ in reasons.most_common()],
        "failures": [
            {"title": titles[key], "counts": failures[key], "episodes": conditions[key].episodes} for key in conditions
        ],
        "seeds": [_seeds_view(titles[key], condition) for key, condition in conditions.items()],
        "policy_episodes": [_episode_view(episode) for episode in main.results] if main else [],
    }


def _row(name: str, c: ConditionResult, task: TaskResult) -> dict[str, Any]:
    d = c.difference_to_policy
    followed = c.followed_rate is not None and c.followed_low is not None and c.followed_high is not None
    return {
        "title": condition_title(name),
        "description": describe(name),
        "role": condition_role(name),
        "rate": NONE if c.success_rate is None else f"{100 * c.success_rate:.1f} %",
        "rate_interval": interval(c.low, c.high) if c.episodes else "",
        "difference": points(d.difference) if d else NONE,
        "difference_interval": f"{points(d.low)} to {points(d.high)}, p {p_value(d.p_value)}" if d else "",
        "followed": f"{100 * (c.followed_rate or 0.0):.1f} %" if followed else NONE,
        "followed_interval": interval(c.followed_low or 0.0, c.followed_high or 0.0) if followed else "",
        "error": centimetres(c.mean_error_m),
        "box_iou": number(c.box_iou, 2),
        "tubes": _tube_measures(c),
        "control_rate": _control_rate(name, task),
        "episodes": str(c.episodes),
        "invalid": str(c.invalid),
    }


def _episode_view(episode: EpisodeResult) -> dict[str, str]:
    verdict = "success" if episode.success else f"failure: {episode.failure or 'not named'}"
    return {
        "seed": str(episode.seed),
        "state": "success" if episode.success else "failure" if episode.valid else "invalid",
        "verdict": verdict if episode.valid else f"invalid: {episode.failure or 'not named'}",
        "instruction": episode.instruction,
        "target": episode.target,
        "steps": str(episode.steps),
        "error": centimetres(episode.mean_error_m),
    }


def _seeds_view(title: str, condition: ConditionResult) -> dict[str, str]:
    return {
        "title": title,
        "all": seed_ranges([episode.seed for episode in condition.results]),
        "failed": seed_ranges([episode.seed for episode in condition.results if not episode.success]),
        "invalid": seed_ranges([episode.seed for episode in condition.results if not episode.valid]),
    }


def seed_ranges(seeds: Sequence[int]) -> str:
    """[4, 1, 2, 3, 7] → "1 to 4, 7"."""
    runs: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    parts = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return ", ".join(parts) or NONE


def _video_view(key: str, path: Path, results: Results) -> dict[str, str]:
    kind = VIDEO_TYPES.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: got a video named {path.suffix or 'nothing'}, expected {', '.join(VIDEO_TYPES)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: the video {key!r} cannot be read: {error.strerror}") from None
    view = {"kind": kind, "data": base64.b64encode(data).decode("ascii"), "title": key, "state": ""}
    episode = _episode_of(key, results)
    if episode is not None:
        task, condition, seed = key.split("/")
        shown = _episode_view(episode)
        view |= shown | {"title": f"{task}, {condition_title(condition)}, seed {seed}"}
    return view


def _episode_of(key: str, results: Results) -> EpisodeResult | None:
    parts = key.split("/")
    if len(parts) != 3 or parts[0] not in results.tasks or parts[1] not in results.tasks[parts[0]].conditions:
        return None
    rows = results.tasks[parts[0]].conditions[parts[1]].results
    return next((episode for episode in rows if str(episode.seed) == parts[2]), None)


def _of_task(settings: Mapping[str, Any], key: str, task: str, kind: type) -> Any:
    """settings[key][task] where it is there and of the right kind."""
    values = settings.get(key)
    value = values.get(task) if isinstance(values, Mapping) else None
    accepted = (int, float) if kind is float else (kind,)
    return value if isinstance(value, accepted) and not isinstance(value, bool) else None


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping) and item:
            yield from _flatten(item, f"{name}.")
        elif isinstance(item, list | tuple):
            yield name, ", ".join(map(str, item))
        else:
            yield name, f"{item:.6g}" if isinstance(item, float) else str(item)


def _control_rate(name: str, task: TaskResult) -> str:
    """It is the network's, whatever the condition: shown once."""
    return NONE if name != POLICY or task.control_rate_hz is None else f"{brief(task.control_rate_hz)} Hz"


def _tube_measures(condition: ConditionResult) -> list[str]:
    """m_tIoU, m_vIoU, vIoU@0.3 and vIoU@0.5."""
    tubes = condition.tubes
    if tubes is None:
        return [NONE] * 4
    return [number(x, 2) for x in (tubes.mean_temporal_iou, tubes.mean_tube_iou, tubes.above_03, tubes.above_05)]
