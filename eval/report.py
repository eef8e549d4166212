"""Results for people: a Markdown table, answers in plain words, and one HTML file that needs no other."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from eval.controls import describe, in_order
from eval.plots import condition_role, error_over_time, learning_curve_plot, success_bars
from eval.results import (
    POLICY,
    ConditionResult,
    EpisodeResult,
    Results,
    TaskResult,
    failure_counts,
    write_whole,
)

TEMPLATES = Path(__file__).with_name("templates")
VIDEO_TYPES = {".mp4": "video/mp4", ".webm": "video/webm", ".webp": "image/webp", ".gif": "image/gif"}
NONE = "\u2013"  # an en dash


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One question about a policy: the `verdict` in a few words, the numbers, their distance to the policy's.

    `clause` says the same inside a sentence ("it listens to the words"), "" where nothing can be said.
    """

    question: str
    verdict: str
    numbers: str
    difference: str = ""
    clause: str = ""


def condition_title(name: str) -> str:
    return name.replace("_", " ")


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
    ]
    header += ["control rate", "episodes", "invalid"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * 2 + "---:|" * 7]
    for task_name, task in results.tasks.items():
        for name, c in in_order(task.conditions).items():
            cells = [task_name, condition_title(name), _rate(c.success_rate, c.low, c.high), _difference(c)]
            cells += [_centimetres(c.mean_error_m), _number(c.box_iou, 2), _control_rate(name, task)]
            cells += [str(c.episodes), str(c.invalid)]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


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
    page = environment.get_template("report.html.j2").render(
        results=results,
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


# Answers in plain words ------------------------------------------------------------


# condition: (question, what "yes" means)
_CONTROLS = {
    "shuffled_instruction": ("Does it listen?", "it listens to the words"),
    "frozen_frames": ("Does it need motion?", "it needs motion"),
    "blank_image": ("Does it need the picture?", "it needs the picture"),
    "previous_action": ("Does it beat repetition?", "it does better than repeating its first action"),
}
_VARIANTS = {
    "held_out_phrasing": ("Does it know new phrasings?", "phrasings it was never trained on"),
    "unseen_combination": ("Does it know unseen combinations?", "unseen combinations of colour and shape"),
}
RARE = 0.2
"""Below this success rate a control cannot show what the policy relies on."""
UNTOLD = "Cannot be told, too many episodes are invalid"
TROUBLE = 0.05
"""Above this share of invalid episodes a condition says more about the machine than about the policy."""


def answers(task: TaskResult) -> list[Answer]:
    """What the conditions say about the policy; questions whose condition was not run are left out.

    "Yes" is said only where the paired 95 % interval excludes that the control changes nothing, and without
    "in part" only where it leaves at most half of the policy's successes.
    """
    policy = _measured(task, POLICY)
    if policy is None:
        return []
    found = []
    for name, (question, clause) in _CONTROLS.items():
        control = _measured(task, name)
        if control is None:
            continue
        verdict, said = "No sign of it", f"there is no sign that {clause}"
        if _troubled(control, policy):
            verdict, said = UNTOLD, ""
        elif _success(policy) < RARE:
            verdict, said = "Cannot be told, the policy rarely succeeds", ""
        elif _change(control, policy) < 0:
            full = _success(control) <= 0.5 * _success(policy)
            verdict, said = ("Yes", clause) if full else ("In part", f"{clause} in part")
        found.append(_answer(control, question, verdict, said))
    for name, (question, noun) in _VARIANTS.items():
        variant = _measured(task, name)
        if variant is None:
            continue
        change = _change(variant, policy)
        verdict = ("Less well", "As far as can be told", "Even better")[change + 1]
        said = ("it does worse on", "no difference was found on", "it does better on")[change + 1] + f" {noun}"
        if _troubled(variant, policy):
            verdict, said = UNTOLD, ""
        found.append(_answer(variant, question, verdict, said))
    expert = _measured(task, "expert")
    if expert is not None:
        verdict = ("The policy is better", "No difference found", "The expert is better")[_change(expert, policy) + 1]
        if _troubled(expert, policy):
            verdict = UNTOLD
        found.append(_answer(expert, "How far is the expert?", verdict, ""))
    return found


def summary(task_name: str, task: TaskResult) -> str:
    """A few sentences: how often it succeeds, what is wrong with that figure, and what the controls say about why."""
    policy = _measured(task, POLICY)
    if policy is None:
        return ". ".join([f"The plain policy was not measured on {task_name}", *_invalid(task)]) + "."
    sentences = [
        f"The policy succeeds in {_percent(_success(policy))} of {policy.episodes} unseen {task_name} "
        f"episodes (95 % interval {_interval(policy.low, policy.high)})",
        *_invalid(task),
    ]
    clauses = [answer.clause for answer in answers(task) if answer.clause]
    plain = [clause.removeprefix("it ") for clause in clauses if clause.startswith("it ")]
    if plain:
        sentences.append("It " + _enumerate(plain))
    sentences += [clause[0].upper() + clause[1:] for clause in clauses if not clause.startswith("it ")]
    if _success(policy) < RARE and any(name in task.conditions for name in _CONTROLS):
        sentences.append("It succeeds too rarely for the controls to show what it relies on")
    if task.control_rate_hz is not None:
        sentences.append(f"One robot would get {task.control_rate_hz:.0f} decisions a second on one CPU thread")
    return ". ".join(sentences) + "."


def _invalid(task: TaskResult) -> list[str]:
    """A sentence on the invalid episodes, if there are any, with the reasons."""
    parts = []
    for name, condition in in_order(task.conditions).items():
        if condition.invalid:
            reasons = failure_counts(condition, invalid=True)
            why = ", ".join(f"{count} \u00d7 {reason}" for reason, count in reasons.items())
            parts.append(f"{condition.invalid} of {condition.episodes} under {condition_title(name)} ({why})")
    return [f"Invalid episodes, which count as failures: {'; '.join(parts)}"] if parts else []


def _answer(condition: ConditionResult, question: str, verdict: str, clause: str) -> Answer:
    numbers = f"{_percent(_success(condition))} succeed ({describe(condition.name)})"
    if condition.followed_rate is not None:
        numbers += f"; {_percent(condition.followed_rate)} did as they were told"
    d = condition.difference_to_policy
    difference = "" if d is None else f"{_difference(condition)} points, p {_p_value(d.p_value)}"
    return Answer(question=question, verdict=verdict, numbers=numbers, difference=difference, clause=clause)


def _measured(task: TaskResult, name: str) -> ConditionResult | None:
    condition = task.conditions.get(name)
    return condition if condition is not None and condition.episodes else None


def _troubled(*conditions: ConditionResult) -> bool:
    """Whether so many episodes are invalid that a comparison would take trouble for failure."""
    return any(condition.invalid > TROUBLE * condition.episodes for condition in conditions)


def _success(condition: ConditionResult) -> float:
    assert condition.success_rate is not None
    return condition.success_rate


def _enumerate(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _change(condition: ConditionResult, policy: ConditionResult) -> int:
    """-1, 0, 1: worse than the policy, not told apart, better. Without pairs the intervals must be apart."""
    d = condition.difference_to_policy
    if d is not None:
        return -1 if d.high < 0 else 1 if d.low > 0 else 0
    return -1 if condition.high < policy.low else 1 if condition.low > policy.high else 0


# What the template shows -----------------------------------------------------------


def _task_view(name: str, task: TaskResult, settings: Mapping[str, Any]) -> dict[str, Any]:
    conditions = in_order(task.conditions)
    titles = {key: condition_title(key) for key in conditions}
    failures = {key: failure_counts(condition) for key, condition in conditions.items()}
    reasons = Counter[str]()
    for counts in failures.values():
        reasons.update(counts)
    control_hz = settings.get("control_hz")
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
        "rate": _percent(_success(main)) if main and main.episodes else NONE,
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


def _row(name: str, c: ConditionResult, task: TaskResult) -> dict[str, str]:
    d = c.difference_to_policy
    followed = c.followed_rate is not None and c.followed_low is not None and c.followed_high is not None
    return {
        "title": condition_title(name),
        "description": describe(name),
        "role": condition_role(name),
        "rate": NONE if c.success_rate is None else f"{100 * c.success_rate:.1f} %",
        "rate_interval": _interval(c.low, c.high) if c.episodes else "",
        "difference": _points(d.difference) if d else NONE,
        "difference_interval": f"{_points(d.low)} to {_points(d.high)}, p {_p_value(d.p_value)}" if d else "",
        "followed": f"{100 * (c.followed_rate or 0.0):.1f} %" if followed else NONE,
        "followed_interval": _interval(c.followed_low or 0.0, c.followed_high or 0.0) if followed else "",
        "error": _centimetres(c.mean_error_m),
        "box_iou": _number(c.box_iou, 2),
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
        "error": _centimetres(episode.mean_error_m),
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


# Numbers as text -------------------------------------------------------------------


def _percent(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def _interval(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def _rate(rate: float | None, low: float, high: float) -> str:
    return NONE if rate is None else f"{100 * rate:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("+0.0", "0.0").replace("-0.0", "0.0").replace("-", "\u2212")


def _difference(condition: ConditionResult) -> str:
    d = condition.difference_to_policy
    return NONE if d is None else f"{_points(d.difference)} ({_points(d.low)} to {_points(d.high)})"


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _centimetres(metres: float | None) -> str:
    return NONE if metres is None else f"{100 * metres:.1f} cm"


def _control_rate(name: str, task: TaskResult) -> str:
    """It is the network's, whatever the condition: shown once."""
    return NONE if name != POLICY or task.control_rate_hz is None else f"{task.control_rate_hz:.0f} Hz"
