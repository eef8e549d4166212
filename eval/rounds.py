"""What rounds of DAgger achieved, as `rounds.json`: success on validation seeds against the expert's labels.

The file holds `settings`, what the rounds rest on, and `rounds`, a `RoundResult` each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from configs.decode import decode
from configs.reading import parse_json
from eval.report.figures import rate_and_interval, thousands
from eval.results import POLICY, Results, load_results, write_whole
from eval.statistics import wilson_interval
from training.run_folder import leaves

FILE = "rounds.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Success:
    """Successes in so many episodes, and the rate with its Wilson interval."""

    successes: int
    episodes: int
    rate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """One round.

    `number` 0 is cloning of the demonstrations. `labels` counts the states that the expert labelled, up to and with
    this round. `share` is the probability with which the expert acted. `checkpoint` is where the round's policy is,
    below the folder of the rounds. `success` is over the episodes of all tasks, None where nothing was judged; `tasks`
    has it by task.
    """

    number: int
    labels: int
    share: float
    checkpoint: str
    success: Success | None = None
    tasks: dict[str, Success] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """The file. The collection of round n has the seed `first_seed` + n; None, in files from before there was that,
    stands for `collect.seed` + 500.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    first_seed: int | None = None
    rounds: list[RoundResult] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION


def success_of(successes: int, episodes: int) -> Success:
    low, high = wilson_interval(successes, episodes)
    return Success(successes=successes, episodes=episodes, rate=successes / episodes, low=low, high=high)


def successes_in(results: Results) -> tuple[Success | None, dict[str, Success]]:
    """What the plain policy achieved in an evaluation: over all tasks, and by task."""
    found = {name: task.conditions[POLICY] for name, task in results.tasks.items() if POLICY in task.conditions}
    tasks = {name: success_of(c.successes, c.episodes) for name, c in found.items() if c.episodes}
    if not tasks:
        return None, {}
    return success_of(sum(s.successes for s in tasks.values()), sum(s.episodes for s in tasks.values())), tasks


def save_rounds(rounds: Rounds, folder: Path) -> Path:
    return write_whole(folder / FILE, json.dumps(asdict(rounds), indent=1) + "\n")


def load_rounds(path: Path) -> Rounds:
    """Read the file.

    Raises:
        ValueError: it is missing, damaged, or of another version.
    """
    plain = _read(path)
    if plain.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"{path}: schema_version {plain.get('schema_version')!r}, expected {SCHEMA_VERSION}")
    try:
        return decode(Rounds, plain)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def cloning_points(paths: Sequence[Path]) -> list[tuple[int, Success]]:
    """States labelled and success of policies that were cloned, by the former.

    Args:
        paths: `rounds.json` of rounds in which the expert acted alone (`dagger.beta` 1), or `results.json` of
            `vla eval`, whose checkpoint says what it was trained on.

    Raises:
        ValueError: one is neither, or the policy acted in a round.
    """
    points: list[tuple[int, Success]] = []
    for path in paths:
        if "rounds" in _read(path):
            rounds = load_rounds(path).rounds
            if acted := next((each for each in rounds if each.share != 1), None):
                raise ValueError(
                    f"{path}: in round {acted.number} the expert acted with probability {acted.share:g}, expected 1, "
                    "which is cloning; give rounds.json of a call with --dagger.beta 1"
                )
            points += [(each.labels, each.success) for each in rounds if each.success is not None]
            continue
        results = load_results(path)
        data = results.checkpoint.provenance.get("data")
        success, _ = successes_in(results)
        if not data or success is None:
            raise ValueError(f"{path}: does not say on how many steps the policy was trained, or judges none")
        try:
            labels = sum(int(d["steps"]) for d in data)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: provenance.data names no steps ({error!r}); take another copy") from None
        points.append((labels, success))
    return sorted(points, key=lambda point: point[0])


def rounds_table(rounds: Sequence[RoundResult]) -> str:
    """The rounds as Markdown."""
    lines = ["| round | labels | expert acts | success (95 % interval) |", "|---:|---:|---:|---:|"]
    for each in rounds:
        success = each.success
        told = "not judged" if success is None else rate_and_interval(success.rate, success.low, success.high)
        lines.append(f"| {each.number} | {thousands(each.labels)} | {100 * each.share:.0f} % | {told} |")
    return "\n".join(lines)


def first_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs first between the settings of two calls, "" if nothing does. What a policy or a training did not
    have yet when the first one was made is at its default.
    """
    old, new = leaves(dict(before)), leaves(dict(now))
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            return f"{key} was {old.get(key)!r} and is now {new.get(key)!r}"
    return ""


def _read(path: Path) -> dict[str, Any]:
    if path.exists() and not path.is_file():  # a device such as /dev/zero has no end
        raise ValueError(f"{path}: not a file, expected rounds.json or results.json")
    try:
        plain = parse_json(path.read_text())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON, is the file complete? ({error})") from None
    if not isinstance(plain, dict):
        raise ValueError(f"{path}: holds {type(plain).__name__}, expected an object")
    return plain
