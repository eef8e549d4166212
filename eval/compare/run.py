"""`vla compare`: trains and judges every row of a grid, several at once if asked, and writes one table and one report.

A row runs as `vla train` and `vla eval` in processes of its own: one that fails takes no other with it, an interrupted
one goes on where it stopped, and what is compared is what the commands do.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.options import parse, plain_parser, run_config, run_parser
from configs.reading import parse_json
from envs.task import find_tasks, use_task_modules
from training.commands import check_demonstrable, collect_all
from training.lock import hold_folder
from training.progress import Progress

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from configs.grid import Grid, Row
    from configs.run import RunConfig
    from eval.compare.rows import RowOutcome
    from training.data.episodes import Dataset

CALIBRATION_STEPS = 30  # of a row whose budget is seconds, to find how many steps that is


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """What all rows share: the grid, the demonstrations and their folder, threads of a row, options of `vla eval`."""

    grid: Grid
    datasets: list[Dataset]
    data: Path
    out: Path
    threads: int
    evaluation: list[str]
    data_prints: list[str]
    configs: dict[str, RunConfig]  # by the row's name

    def settings(self, row: Row) -> dict[str, Any]:
        """What a row's outcome rests on: one that was made otherwise has to be made again."""
        budget = {"samples": row.samples, "seconds": self.grid.seconds}
        config = self.configs[row.name]
        parts = {name: asdict(getattr(config, name)) for name in ("policy", "train", "eval")}
        made = {**parts, **budget, "data": self.data_prints, "evaluation": self.evaluation}
        plain: dict[str, Any] = json.loads(json.dumps(made))  # as it is read back
        return plain


def compare(arguments: list[str]) -> int:
    parser = plain_parser("compare")
    parser.add_argument("grid", type=str, help="YAML file with the rows and their budget; see configs/grids/")
    parser.add_argument("--out", type=str, default="runs/compare", help="folder for rows, table and report")
    parser.add_argument("--data", type=str, help="folder of `vla collect`; collected below --out if left out")
    parser.add_argument("--jobs", type=int, default=1, help="rows at once; they share the cores")
    parser.add_argument("--episodes", type=int, help="test episodes a condition; the run's own if left out")
    parser.add_argument("--controls", type=str, help="all, none or names with commas; the run's own if left out")
    parsed = parse(parser, arguments)
    use_task_modules(filter(None, [parsed.task_module]))
    from configs.grid import read_grid
    from eval.controls import choose_controls

    if parsed.jobs < 1:
        raise ValueError(f"--jobs {parsed.jobs} must be at least 1")
    if parsed.episodes is not None and parsed.episodes < 1:
        raise ValueError(f"--episodes {parsed.episodes} must be at least 1")
    if parsed.controls is not None:
        choose_controls(parsed.controls)
    grid = read_grid(Path(parsed.grid))
    config = configured(grid.run, {})
    # All of them now: a mistake in the last row should not come to light after hours, and the parser changes the
    # working directory while it reads, which threads must not do.
    configs = {row.name: configured(grid.run, row.changes) for row in grid.rows}
    out = Path(parsed.out)
    data = Path(parsed.data) if parsed.data else out / "data"
    evaluation = [
        f"--{name}={getattr(parsed, name)}" for name in ("episodes", "controls") if getattr(parsed, name) is not None
    ]
    for each in configs.values():
        check_demonstrable(each)
    with hold_folder(out):
        return _compare(grid, config, configs, data, out, parsed.jobs, evaluation)


def _compare(
    grid: Grid,
    config: RunConfig,
    configs: dict[str, RunConfig],
    data: Path,
    out: Path,
    jobs: int,
    evaluation: list[str],
) -> int:
    """Do the work in a folder that is ours; `configs` by the row's name, `evaluation` options of `vla eval`."""
    from envs.cores import usable_cores
    from eval.compare.page import write_comparison
    from eval.compare.rows import comparison_table, save_row, summarise
    from eval.results import write_whole
    from training.provenance import fingerprint

    datasets = collect_all(config, data)
    shared = _Shared(
        grid=grid,
        datasets=datasets,
        data=data.resolve(),
        out=out.resolve(),
        threads=max(1, usable_cores() // jobs),
        evaluation=evaluation,
        data_prints=[fingerprint(d) for d in datasets],
        configs=configs,
    )
    outcomes = _run_all(shared, jobs)
    # Costs are measured when nothing else runs, one after the other in this process: only so can they be compared.
    for i, row in enumerate(grid.rows):
        outcomes[i] = _with_cost(outcomes[i], _folder(shared, row), configs[row.name])
        save_row(outcomes[i], _folder(shared, row))
    folders = [_folder(shared, row) for row in grid.rows]
    entries = summarise(list(zip(outcomes, folders, strict=True)), find_tasks(config.tasks))
    table = comparison_table(entries)
    write_whole(out / "table.md", table)
    report = write_comparison(entries, out)
    print(table)
    print(report)
    return 1 if all(outcome.failure for outcome in outcomes) else 0


def configured(run: str, changes: dict[str, Any]) -> RunConfig:
    """The run with a row's changes.

    Raises:
        ValueError: the changes do not fit.
    """
    return run_config(parse(_parser(), _options(run, changes)))


@cache
def _parser() -> ArgumentParser:
    """One for all rows: to make it takes longer than to use it."""
    return run_parser("train", "track")


def _options(run: str, changes: dict[str, Any]) -> list[str]:
    plain = {key: value if isinstance(value, str) else json.dumps(value) for key, value in changes.items()}
    return ["--config", run, *(f"--{key}={value}" for key, value in plain.items())]


def _folder(shared: _Shared, row: Row) -> Path:
    return shared.out / "rows" / row.name


def _run_all(shared: _Shared, jobs: int) -> list[RowOutcome]:
    """Run every row that is not done yet; on an interrupt the running ones save their state."""
    from eval.compare.rows import load_row, save_row

    done: dict[str, RowOutcome] = {}
    running = _Running()
    rows = shared.grid.rows
    with Progress("compare", len(rows), "rows") as progress, ThreadPoolExecutor(jobs) as pool:
        waiting: dict[Future[RowOutcome], Row] = {}
        try:
            for row in rows:
                before = load_row(_folder(shared, row))
                if before is not None and not before.failure and _same(before.settings, shared.settings(row)):
                    done[row.name] = before
                else:
                    waiting[pool.submit(_run_row, shared, row, running)] = row
            progress.update(len(done))
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    row = waiting.pop(future)
                    done[row.name] = future.result()
                    save_row(done[row.name], _folder(shared, row))
                    progress.update(len(done), f"{row.name}{': failed' if done[row.name].failure else ''}")
        except BaseException:
            running.stop()
            for future in waiting:
                future.cancel()
            raise
    return [done[row.name] for row in rows]


def _same(before: dict[str, Any], now: dict[str, Any]) -> bool:
    from training.error import TrainingError
    from training.run_folder import leaves

    try:
        return leaves(before) == leaves(now)
    except TrainingError:  # of an earlier version: the row has to be made again
        return False


def _run_row(shared: _Shared, row: Row, running: _Running) -> RowOutcome:
    from eval.compare.rows import RowOutcome
    from training.error import TrainingError
    from training.run_folder import CHECKPOINT, CONFIG, STATE, check_same, describe, is_finished, read_described
    from training.state import has_state

    folder = _folder(shared, row)
    train = folder / "train"
    config = shared.configs[row.name]
    outcome = RowOutcome(
        variant=row.variant,
        seed=row.seed,
        budget=row.samples,
        changes=row.changes,
        settings=shared.settings(row),
    )
    try:
        # A row that was begun goes on with the threads it had: its weights depend on them.
        threads = shared.threads
        if (train / CONFIG).is_file():
            threads = int(read_described(train).get("train", {}).get("threads", threads))
        common = [*_options(shared.grid.run, row.changes), f"--train.seed={row.seed}", f"--train.threads={threads}"]
        steps = _steps(shared, row, common, folder, running)
        if is_finished(train):
            trained = replace(config.train, steps=steps, seed=row.seed, threads=threads)
            check_same(train, describe(config.policy, trained, shared.datasets))
        else:
            resume = ["--resume"] if has_state(train / STATE) else []
            command = ["train", *common, f"--train.steps={steps}", "--data", str(shared.data), "--out", str(train)]
            running.run([*command, *resume], folder)
        # Judged even if there are results: those may be of other episodes or controls.
        judging = {key: value for key, value in row.changes.items() if key.startswith("eval.")}
        command = ["eval", str(train / CHECKPOINT), *_options(shared.grid.run, judging), *shared.evaluation]
        workers = f"--workers={shared.threads}"
        running.run([*command, workers, "--videos=0", "--overwrite", "--out", str(folder / "eval")], folder)
    except (_RowError, TrainingError, OSError, ValueError) as error:
        return replace(outcome, failure=str(error))
    return replace(outcome, samples=steps * config.train.batch)


def _steps(shared: _Shared, row: Row, common: list[str], folder: Path, running: _Running) -> int:
    """Steps of a row; found once for a budget in seconds, and kept, so that a resumed row has the same."""
    if row.samples is not None:
        return max(1, row.samples // shared.configs[row.name].train.batch)
    assert shared.grid.seconds is not None
    from training.log import read_log

    kept = folder / f"steps_of_{shared.grid.seconds:g}_seconds.json"
    if not kept.is_file():
        trial = folder / "calibration"
        shutil.rmtree(trial, ignore_errors=True)  # of an interrupted call
        command = ["train", *common, f"--train.steps={CALIBRATION_STEPS}", "--train.log_every=10", "--data"]
        running.run([*command, str(shared.data), "--out", str(trial)], folder)
        log = read_log(trial)
        # Without the first ten steps, which are slower.
        rate = (log[-1]["step"] - log[0]["step"]) / (log[-1]["seconds"] - log[0]["seconds"])
        kept.write_text(json.dumps(max(1, round(shared.grid.seconds * rate))))
    return int(parse_json(kept.read_text()))


def _with_cost(outcome: RowOutcome, folder: Path, config: RunConfig) -> RowOutcome:
    """The outcome with what is not measured yet; failed if its files cannot be read, so that the others still count.
    What cannot be measured is said and left out: a row that was judged stays so.
    """
    from eval.compare.rows import RESULTS
    from eval.cost import measure_cost
    from eval.results import POLICY, load_results
    from training.bench import training_rate
    from training.run_folder import CHECKPOINT
    from vla_policy.checkpoint import load_checkpoint

    if outcome.failure:
        return outcome
    try:
        results = load_results(folder / RESULTS)
        if any(POLICY not in task.conditions for task in results.tasks.values()):
            raise ValueError(f"{folder / RESULTS}: condition {POLICY!r} is missing")
        trained = results.checkpoint.provenance.get("settings", {}).get("train", {}).get("seed", outcome.seed)
        if trained != outcome.seed:
            raise ValueError(f"{folder / RESULTS}: of training seed {trained}, the row's is {outcome.seed}")
        if outcome.cost is not None and outcome.samples_per_second is not None:
            return outcome
        policy = load_checkpoint(folder / "train" / CHECKPOINT).policy
    except (OSError, ValueError) as error:
        return replace(outcome, failure=f"{error}; run the same command again to judge it anew")
    try:
        outcome = replace(outcome, cost=outcome.cost or measure_cost(policy))
        return replace(outcome, samples_per_second=training_rate(policy, config.train))
    except (RuntimeError, ValueError) as error:
        print(
            f"{folder.parent.parent.name}: its cost could not be measured: {' '.join(str(error).split())}", flush=True
        )
        return outcome


class _RowError(Exception):
    """A row's command failed; the message is its last line."""


class _Running:
    """The commands that run at the moment, so that an interrupt reaches them all."""

    def __init__(self) -> None:
        self._children: set[subprocess.Popen[str]] = set()
        self._lock, self._stopped = threading.Lock(), False

    def run(self, command: list[str], folder: Path) -> None:
        """Run one `vla` command to its end; what it prints goes to `log.txt` in the row's folder.

        Raises:
            _RowError: it failed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("a") as log:
            with self._lock:
                if self._stopped:
                    raise _RowError("interrupted")
                child = subprocess.Popen(
                    [sys.executable, "-m", "vla_policy.cli", *command],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    text=True,
                    start_new_session=True,  # Ctrl-C is passed on once, by stop()
                )
                self._children.add(child)
            code = child.wait()
            with self._lock:
                self._children.discard(child)
        if code:
            lines = (folder / "log.txt").read_text().splitlines()
            raise _RowError(lines[-1].removeprefix("vla: ") if lines else f"exit code {code}")

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for child in self._children:
                child.terminate()
