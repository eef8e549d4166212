"""The folder of an evaluation: one finished set of results, table, report and videos, and what is being made.

An evaluation works in `unfinished/`. Only what is whole moves up, and what stood there of an earlier one goes first:
results never stand beside a table or report of others.
"""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from eval.results import Results, load_results

RESULTS, TABLE, REPORT, VIDEOS = "results.json", "table.md", "report.html", "videos"
UNFINISHED = "unfinished"
FOLDER = Path("runs/eval")  # of evaluations whose place nobody names
COMPUTED = ("not_offered", "unread_words")  # of the settings, what follows from the conditions that were run


def new_folder(name: str) -> Path:
    """A place for an evaluation of this policy that none was written to before."""
    plain = Path(name).name or "policy"
    first = FOLDER / f"{plain}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = first, 1
    while folder.exists():
        number += 1
        folder = first.with_name(f"{first.name}-{number}")
    return folder


def take_up(out: Path, wanted: Results, *, overwrite: bool) -> Results | None:
    """What an earlier call of the same evaluation found, None if there is nothing to go on from.

    Args:
        wanted: the evaluation that is asked for, without conditions.
        overwrite: replace a finished or unfinished one, of other settings too; one that was begun to do so goes on.

    Raises:
        ValueError: the folder holds another evaluation.
    """
    finished, unfinished = _read(out / RESULTS), _read(out / UNFINISHED / RESULTS)
    if (out / RESULTS).is_file() and not overwrite:
        _check_same(out / RESULTS, finished, wanted)
    if (out / UNFINISHED / RESULTS).is_file() and not overwrite:
        _check_same(out / UNFINISHED / RESULTS, unfinished, wanted)
    if unfinished is not None and _difference(unfinished, wanted) is None:
        return unfinished
    return None if overwrite else finished


def begin(out: Path) -> Path:
    """The folder in which the evaluation is to write."""
    (out / UNFINISHED).mkdir(parents=True, exist_ok=True)
    return out / UNFINISHED


def publish(out: Path) -> None:
    """Put what was made in `unfinished/` in place of what stood in the folder."""
    made = out / UNFINISHED
    for name in (REPORT, TABLE):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / VIDEOS, ignore_errors=True)
    for name in (RESULTS, TABLE, VIDEOS, REPORT):
        if (made / name).exists():
            os.replace(made / name, out / name)
    shutil.rmtree(made)


def add_videos(out: Path) -> None:
    """Put videos, and the report that holds them, beside the results that they belong to."""
    made = out / UNFINISHED
    if (made / VIDEOS).is_dir():
        shutil.rmtree(out / VIDEOS, ignore_errors=True)
        os.replace(made / VIDEOS, out / VIDEOS)
    os.replace(made / REPORT, out / REPORT)
    shutil.rmtree(made)


def _read(path: Path) -> Results | None:
    """Results that are there and whole."""
    try:
        return load_results(path)
    except ValueError:
        return None


def _check_same(path: Path, found: Results | None, wanted: Results) -> None:
    what = "is of another version, or damaged" if found is None else _difference(found, wanted)
    if what is not None:
        raise ValueError(f"{path}: another evaluation ({what}); choose another --out, or replace it with --overwrite")


def _difference(found: Results, wanted: Results) -> str | None:
    """What differs first between two evaluations, in words; None if they are the same one."""
    old, new = _identity(found), _identity(wanted)
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            return f"{key} was {old.get(key)!r} and is now {new.get(key)!r}"
    return None


def _identity(results: Results) -> dict[str, Any]:
    """All that decides what an evaluation finds, but the conditions: more of them may be asked for later."""
    settings = {f"settings.{key}": value for key, value in results.settings.items() if key not in COMPUTED}
    versions = {f"versions.{key}": value for key, value in results.versions.items()}
    one = {"weights": results.checkpoint.weights, "seed": results.seed, "tasks": sorted(results.tasks)}
    plain: dict[str, Any] = json.loads(json.dumps({**one, **settings, **versions, "renderer": results.gl_renderer}))
    return plain
