"""What an evaluation found: the records in memory and their one JSON file.

The file is the dataclasses below, field by field, so each docstring here is the description of its part:

    schema_version   int, SCHEMA_VERSION; a file of another version is refused
    created          str, ISO 8601 with time zone
    sha256           str, checksum of all other fields; files of earlier versions have none
    complete         bool; false in what an interrupted evaluation leaves, which lacks the conditions not finished
    checkpoint       {path: str, provenance: {...}, weights: SHA-256} of what was judged; the path as the user gave it
    versions         {python: "3.11.7", torch: ..., mujoco: ..., gymnasium: ..., ...}
    gl_renderer      str, what OpenGL says it is; pictures differ between renderers
    seed             int, the seed that the episodes' seeds derive from
    settings         {...} everything else that was chosen. The report reads these keys if present:
                       control_hz   {task: control steps per second of simulated time} (time axis in seconds)
                       horizon      {task: control steps of an episode at most}
                       tolerance_m  {task: metres}, drawn as a line under the tracking errors
                       criteria     {task: sentence}, what counts as success
                       difficulty   {task: its difficulty within its suite}, of those that have one
                       not_offered  {task: {condition: why the task cannot be run under it}}
                       unread_words {task: {"unknown": [...], "dropped": [...]}}, words that the policy could not read
    tasks.<task>.control_rate_hz
                     float, decisions a second that one robot would get: 1 / the median time of one decision for a
                     batch of one on one CPU thread, from the pictures to the action, measured before the episodes
    tasks.<task>.conditions.<condition>
                     one ConditionResult: {success_rate, low, high, episodes, invalid, ..., results: [...]}
      .results       one EpisodeResult per seed, in order of the seeds

Rates lie in [0, 1], distances are in metres, `null` stands for "no such number here", NaN is not allowed.
An episode that ended invalid (simulator unstable; worker failed, dead or hung) counts as a failure in the rate and once
more in `invalid`, so that trouble can never raise a success rate.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from configs.decode import decode, show
from configs.disk import filling
from configs.reading import parse_json
from configs.seeds import split_seed
from eval.statistics import PairedDifference, mean_known, paired_difference, wilson_interval
from eval.tubes import TubeScores, TubeSummary, summarise_tubes

SCHEMA_VERSION = 2

POLICY = "policy"  # the condition that the others are compared with


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """One rollout.

    `instruction` is what the policy read, `task_instruction` the true one (they differ in the controls).
    `target` names the true target for people ("red ball"). `mean_error_m` is the distance to the
    target, as the task measures it, averaged over the judged part, `errors_m` the same distance at every control step.
    `box_iou` compares the predicted with the true box in the newest frame, averaged over the episode; `tube` compares
    all of them and the time of the event.
    `followed_instruction`: success judged against what the read instruction names; None if that is the task.
    `failure` says why in a few words ("wrong target", "lost target", "worker died", ...), "" on success.
    """

    seed: int
    success: bool
    valid: bool = True
    steps: int = 0
    instruction: str = ""
    task_instruction: str = ""
    target: str = ""
    mean_error_m: float | None = None
    errors_m: list[float] = field(default_factory=list)
    box_iou: float | None = None
    tube: TubeScores | None = None
    followed_instruction: bool | None = None
    failure: str = ""

    def __post_init__(self) -> None:
        for name in ("seed", "steps"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"{name}: got {value!r} ({type(value).__name__}), expected an int of 0 or more")
        for name in ("success", "valid", "followed_instruction"):
            value = getattr(self, name)
            if not isinstance(value, bool) and not (name == "followed_instruction" and value is None):
                raise ValueError(f"{name}: got {value!r} ({type(value).__name__}), expected a bool")
        if self.success and not self.valid:
            raise ValueError("success: got true in an invalid episode, expected false (invalid counts as failure)")
        if self.success and self.failure:
            raise ValueError(f"failure: got {self.failure!r} in a successful episode, expected an empty text")
        _check_number("mean_error_m", self.mean_error_m, 0.0, math.inf)
        _check_number("box_iou", self.box_iou, 0.0, 1.0)
        for error in self.errors_m:
            _check_number("errors_m", error, 0.0, math.inf)


@dataclass(frozen=True, kw_only=True)
class ConditionResult:
    """All episodes of one condition and what follows from them; built by `summarise_condition`.

    `success_rate` with its Wilson interval `low`, `high`; None without episodes. `mean_error_m` and `box_iou`
    average the episodes that have such a number, failures included, as `tubes` does. `followed_rate` is the share that
    did what the instruction they read asks. `difference_to_policy` compares with the `policy` condition on the same
    seeds.
    """

    name: str
    success_rate: float | None
    low: float
    high: float
    episodes: int
    invalid: int
    mean_error_m: float | None = None
    box_iou: float | None = None
    tubes: TubeSummary | None = None
    followed_rate: float | None = None
    followed_low: float | None = None
    followed_high: float | None = None
    difference_to_policy: PairedDifference | None = None
    results: list[EpisodeResult] = field(default_factory=list)

    def __post_init__(self) -> None:
        seeds = [episode.seed for episode in self.results]
        if len(set(seeds)) != len(seeds):
            repeated = next(seed for seed in seeds if seeds.count(seed) > 1)
            raise ValueError(f"results: got seed {repeated} twice, expected each seed once")
        if self.episodes != len(self.results):
            raise ValueError(f"episodes: got {self.episodes}, expected {len(self.results)}, the number of results")
        invalid = sum(not episode.valid for episode in self.results)
        if self.invalid != invalid:
            raise ValueError(f"invalid: got {self.invalid}, expected {invalid}, as counted in results")
        rate = _share([episode.success for episode in self.results])
        if (rate is None) != (self.success_rate is None) or abs((rate or 0.0) - (self.success_rate or 0.0)) > 1e-9:
            raise ValueError(f"success_rate: got {self.success_rate}, expected {rate}, as counted in results")
        _check_number("low", self.low, 0.0, 1.0 if rate is None else rate)
        _check_number("high", self.high, 0.0 if rate is None else rate, 1.0)
        _check_number("followed_rate", self.followed_rate, 0.0, 1.0)

    @property
    def successes(self) -> int:
        return sum(episode.success for episode in self.results)


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """One task under every condition that was asked for; `control_rate_hz` where it was measured."""

    control_rate_hz: float | None = None
    conditions: dict[str, ConditionResult] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_number("control_rate_hz", self.control_rate_hz, 0.0, math.inf)
        for key, condition in self.conditions.items():
            if key != condition.name:
                raise ValueError(f"conditions.{key}.name: got {condition.name!r}, expected {key!r}")


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """Where the judged weights lay, what they say about their making, and their SHA-256, "" where nobody noted it."""

    path: str
    provenance: dict[str, Any] = field(default_factory=dict)
    weights: str = ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class Results:
    """One evaluation; the fields are described at the top of this file."""

    checkpoint: CheckpointInfo
    seed: int
    tasks: dict[str, TaskResult] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    gl_renderer: str = ""
    created: str = field(default_factory=_now)
    complete: bool = True
    schema_version: int = SCHEMA_VERSION


def summarise_condition(
    name: str, results: Iterable[EpisodeResult], *, policy: Sequence[EpisodeResult] | None = None
) -> ConditionResult:
    """Counts, rates and intervals of one condition.

    Args:
        results: its episodes in any order; they are kept in the order of their seeds, so the outcome does not
            depend on which worker finished first.
        policy: the episodes of the `policy` condition; the seeds in common are compared in pairs.
    """
    ordered = sorted(results, key=lambda episode: episode.seed)
    successes = sum(episode.success for episode in ordered)
    low, high = wilson_interval(successes, len(ordered))
    followed = [episode.followed_instruction for episode in ordered if episode.followed_instruction is not None]
    followed_low, followed_high = wilson_interval(sum(followed), len(followed)) if followed else (None, None)
    return ConditionResult(
        name=name,
        success_rate=_share([episode.success for episode in ordered]),
        low=low,
        high=high,
        episodes=len(ordered),
        invalid=sum(not episode.valid for episode in ordered),
        mean_error_m=mean_known([episode.mean_error_m for episode in ordered]),
        box_iou=mean_known([episode.box_iou for episode in ordered]),
        tubes=summarise_tubes([episode.tube for episode in ordered]),
        followed_rate=_share(followed),
        followed_low=followed_low,
        followed_high=followed_high,
        difference_to_policy=_difference(ordered, policy) if policy is not None and name != POLICY else None,
        results=ordered,
    )


def failure_counts(condition: ConditionResult, *, invalid: bool = False) -> dict[str, int]:
    """How often each failure occurred, most frequent first; failures without a name count as "not named".

    `invalid` counts the invalid episodes only, whose failures are not the policy's.
    """
    counts: dict[str, int] = {}
    for episode in condition.results:
        if not episode.success and not (invalid and episode.valid):
            reason = episode.failure or "not named"
            counts[reason] = counts.get(reason, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def save_results(results: Results, path: str | Path) -> Path:
    """Write the JSON file, whole or not at all: a file that exists is a complete one."""
    path = Path(path)
    try:
        # A round trip through the compact text turns tuples into lists and refuses what JSON cannot hold.
        plain = json.loads(json.dumps(asdict(results), allow_nan=False))
        plain["sha256"] = _checksum(plain)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: not written, the results hold something that JSON cannot: {error}") from None
    return write_whole(path, _pretty(plain) + "\n")


def write_whole(path: Path, text: str) -> Path:
    """Write a text file so that nobody, after a crash either, finds half of it under its name."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with filling(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def load_results(path: str | Path) -> Results:
    """Read and check a results file; every complaint is one line: the file, the field, got, expected."""
    path = Path(path)
    if path.exists() and not path.is_file():  # a device such as /dev/zero has no end
        raise ValueError(f"{path}: not a file, expected the results.json of an evaluation")
    try:
        plain = parse_json(path.read_text(encoding="utf-8"), constant=_refuse_constant)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file, expected the results.json of an evaluation") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON, is the file complete? ({error})") from None
    try:
        if not isinstance(plain, dict):
            raise ValueError(f"got {show(plain)}, expected an object")
        if plain.get("schema_version") != SCHEMA_VERSION:
            got = show(plain["schema_version"]) if "schema_version" in plain else "nothing"
            raise ValueError(f"schema_version: got {got}, expected {SCHEMA_VERSION}")
        stated = plain.pop("sha256", None)  # earlier files have none
        decoded = decode(Results, plain)
        _check_recomputed(decoded)
        if stated is not None and stated != _checksum(plain):
            raise ValueError(f"sha256: got {show(stated)}, expected another: the file was changed; evaluate again")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return decoded


def _check_recomputed(results: Results) -> None:
    """Everything that follows from the episodes does, and their seeds are those that such an evaluation has.

    Raises:
        ValueError: the first thing that does not; one line with its path, got and expected.
    """
    for task_name, task in results.tasks.items():
        policy = task.conditions.get(POLICY)
        for name, condition in task.conditions.items():
            where = f"tasks.{task_name}.conditions.{name}"
            split = str(results.settings.get("split", "test"))
            expected = [split_seed(split, results.seed + i) for i in range(condition.episodes)]
            for episode, seed in zip(condition.results, expected, strict=True):
                if episode.seed != seed:
                    meant_by = f"a {split} seed of seed {results.seed}"
                    raise ValueError(f"{where}.results: got seed {episode.seed}, expected {seed}, {meant_by}")
            again = summarise_condition(name, condition.results, policy=policy.results if policy else None)
            got, meant = asdict(condition), asdict(again)
            if condition.difference_to_policy is None:  # of results that were saved before the policy's
                meant["difference_to_policy"] = None
            if condition.tubes is not None and condition.tubes.gt_above_03 is None and meant["tubes"] is not None:
                meant["tubes"] |= {"gt_above_03": None, "gt_above_05": None}  # of results from before they were
            for key, value in meant.items():
                if key != "results" and not _close(got[key], value):
                    raise ValueError(f"{where}.{key}: got {show(got[key])}, expected {show(value)}, as counted")


def _close(got: Any, meant: Any) -> bool:
    """Whether two values are the same but for rounding, which differs between versions of the libraries."""
    if isinstance(got, dict) and isinstance(meant, dict):
        return got.keys() == meant.keys() and all(_close(got[key], meant[key]) for key in got)
    if isinstance(got, float) and isinstance(meant, float | int):
        return math.isclose(got, meant, rel_tol=1e-6, abs_tol=1e-6)
    return bool(got == meant)


def _checksum(plain: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


# Numbers ------------------------------------------------------------


def _check_number(name: str, value: object, low: float, high: float) -> None:
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name}: got {value!r} ({type(value).__name__}), expected a finite number")
    if not low - 1e-9 <= value <= high + 1e-9:
        expected = f"at least {low:g}" if math.isinf(high) else f"a number in [{low:g}, {high:g}]"
        raise ValueError(f"{name}: got {value!r}, expected {expected}")


def _share(outcomes: Sequence[bool]) -> float | None:
    return sum(outcomes) / len(outcomes) if outcomes else None


def _difference(episodes: Sequence[EpisodeResult], policy: Sequence[EpisodeResult]) -> PairedDifference | None:
    by_seed = {episode.seed: episode.success for episode in policy}
    pairs = [(episode.success, by_seed[episode.seed]) for episode in episodes if episode.seed in by_seed]
    return paired_difference([a for a, _ in pairs], [b for _, b in pairs]) if pairs else None


# JSON ------------------------------------------------------------


def _pretty(value: Any, indent: str = "") -> str:
    """JSON with one line for a field, and one line for an episode however many numbers it holds."""
    inner = indent + " "
    if isinstance(value, dict) and value:
        lines = [f"{inner}{json.dumps(key)}: {_pretty(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return "[\n" + ",\n".join(inner + json.dumps(item) for item in value) + f"\n{indent}]"
    return json.dumps(value)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"got {name}, expected a finite number or null")
