"""Whole evaluations of an untrained policy: determinism, controls, and what is refused."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from configs.evaluation import EvalConfig
from configs.seeds import SEED_STARTS
from envs.task import Env, TaskSpec, find_task, make_task, register_task, use_task_modules
from envs.workers import Pulse
from eval import evaluate as module
from eval.acting import GROUP, one_thread
from eval.controls import CONTROLS
from eval.evaluate import TIMED, control_rate, evaluate
from eval.results import EpisodeResult, Results
from vla_policy.checkpoint import given_name, load_checkpoint, resolve_checkpoint


def _rows(results: Results, condition: str = "policy") -> list[dict[str, Any]]:
    return [asdict(e) for e in results.tasks["track"].conditions[condition].results]


def test_outcomes_do_not_depend_on_the_number_of_workers(tiny_checkpoint: Path) -> None:
    settings: dict[str, Any] = {"episodes": 12, "controls": ()}
    one = evaluate(tiny_checkpoint, EvalConfig(workers=1, **settings))
    two = evaluate(tiny_checkpoint, EvalConfig(workers=2, **settings))
    assert _rows(one) == _rows(two)
    assert one.complete
    rate = one.tasks["track"].control_rate_hz
    assert rate is not None
    assert rate > 1
    assert [row["seed"] for row in _rows(one)] == [SEED_STARTS["test"] + i for i in range(12)]


@pytest.mark.usefixtures("one_process")
def test_every_control_runs_and_means_what_it_says(tiny_checkpoint: Path) -> None:
    config = EvalConfig(episodes=4, workers=2, controls=tuple(CONTROLS))
    results = evaluate(tiny_checkpoint, config)
    conditions = results.tasks["track"].conditions
    assert set(conditions) == set(CONTROLS)
    assert conditions["expert"].success_rate == 1.0
    assert all(row["instruction"] == row["task_instruction"] for row in _rows(results))
    shuffled = _rows(results, "shuffled_instruction")
    assert all(row["instruction"] != row["task_instruction"] for row in shuffled)
    assert all(row["followed_instruction"] is not None for row in shuffled)
    assert all(row["valid"] and row["steps"] == 110 for name in conditions for row in _rows(results, name))


@pytest.mark.usefixtures("one_process")
def test_the_seed_moves_the_scenes(tiny_checkpoint: Path) -> None:
    first = evaluate(tiny_checkpoint, EvalConfig(episodes=2, workers=1, controls=()))
    second = evaluate(tiny_checkpoint, EvalConfig(episodes=2, seed=1, workers=1, controls=()))
    assert _rows(first)[1]["task_instruction"] == _rows(second)[0]["task_instruction"]


@pytest.mark.usefixtures("one_process")
def test_finished_conditions_are_handed_over_as_they_come(tiny_checkpoint: Path) -> None:
    parts: list[Results] = []
    config = EvalConfig(episodes=2, workers=1, controls=("expert", "frozen_frames"))
    whole = evaluate(tiny_checkpoint, config, on_condition=parts.append)
    names = ["policy", "frozen_frames", "expert"]  # in the order of the reports
    assert [list(part.tasks["track"].conditions) for part in parts] == [names[:1], names[:2], names]
    assert [part.complete for part in parts] == [False, False, True]
    assert replace(parts[-1], created="") == replace(whole, created="")
    assert parts[0].tasks["track"].conditions["policy"] == whole.tasks["track"].conditions["policy"]
    assert parts[1].tasks["track"].conditions["frozen_frames"].difference_to_policy is not None


def _prepare_trouble(pulse: Pulse, setup: tuple[Path, EvalConfig]) -> Callable[[Any], list[EpisodeResult]]:
    """In place of episodes: what goes wrong is named by the checkpoint's folder."""
    trouble = setup[0].name
    if trouble == "start":
        raise ImportError("no such library")

    def handle(job: Any) -> list[EpisodeResult]:
        seeds = [seed for seed in job.seeds if seed is not None]
        for seed in seeds:
            pulse.beat(seed)
            if trouble == "one" and seed == SEED_STARTS["test"] + 3:
                raise KeyError("bad scene")
            if trouble == "mistake":
                raise ValueError("cannot be done")
        if trouble == "network" and job.condition == "expert":
            pulse.beat()
            raise RuntimeError("no memory")
        if trouble == "always":
            raise RuntimeError("always")
        return [EpisodeResult(seed=seed, success=True) for seed in seeds]

    return handle


def _outcomes(trouble: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, list[EpisodeResult]]]:
    monkeypatch.setattr(module, "_prepare", _prepare_trouble)
    config = EvalConfig(episodes=12, workers=2)
    jobs = [
        module._Job(task="track", condition=name, seeds=seeds)
        for name in ("policy", "expert")
        for seeds in module._groups(config, "test")
    ]
    return module._finish_all(jobs, Path(trouble), config)


def _finish_with(trouble: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[EpisodeResult]]:
    found: dict[str, list[EpisodeResult]] = {"policy": [], "expert": []}
    for job, episodes in _outcomes(trouble, monkeypatch):
        found[job.condition] += episodes
    assert all(sorted(e.seed for e in got) == [SEED_STARTS["test"] + i for i in range(12)] for got in found.values())
    return found


def test_a_seed_that_fails_is_lost_and_its_group_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for episodes in _finish_with("one", monkeypatch).values():
        [bad] = [e for e in episodes if not e.success]
        assert (bad.seed, bad.valid) == (SEED_STARTS["test"] + 3, False)
        assert bad.failure.startswith("KeyError: 'bad scene' (test_evaluate.py, line ")


def test_a_group_that_fails_as_a_whole_is_lost_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _finish_with("network", monkeypatch)
    assert all(e.success for e in found["policy"])
    assert all(not e.valid and e.failure.startswith("RuntimeError: no memory") for e in found["expert"])


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("start", r"no episode could be finished: ImportError: no such library \(test_evaluate.py, line \d+\); `vla d"),
        ("always", r"no episode could be finished: RuntimeError: always"),
        ("mistake", r"cannot be done$"),
    ],
    ids=["start", "always", "mistake"],
)
def test_what_cannot_work_at_all_soon_stops_with_one_line(
    trouble: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[Any] = []
    with pytest.raises(ValueError, match=f"^{message}"):
        outcomes.extend(_outcomes(trouble, monkeypatch))
    assert outcomes == []


def test_after_a_failure_the_environments_are_made_anew(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, foreign: Path
) -> None:
    use_task_modules([str(foreign)])
    used: list[list[Env]] = []

    def fail_once(envs: list[Env], *_: Any, **__: Any) -> list[Any]:
        used.append(list(envs))
        if len(used) == 2:
            raise RuntimeError
        return []

    monkeypatch.setattr(module, "run", fail_once)
    monkeypatch.setattr(module, "make_task", lambda *_, **__: SimpleNamespace(close=lambda: closed.append(1)))
    closed: list[int] = []
    with one_thread():  # a worker sets its own number
        handle = module._prepare(Pulse(multiprocessing), (tiny_checkpoint, EvalConfig()))
    job = module._Job(task="dots/plain", condition="policy", seeds=(None,) * GROUP)
    handle(job)
    with pytest.raises(RuntimeError):
        handle(job)
    assert len(closed) == GROUP
    handle(job)
    assert used[0] == used[1]
    assert not set(map(id, used[1])) & set(map(id, used[2]))


def test_the_control_rate_is_that_of_one_robot(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    env = make_task("track", cameras=("front",), size=checkpoint.policy.shapes.size)
    asked: list[tuple[int, int]] = []
    act = checkpoint.policy.act

    def slow(observation: Any) -> Any:
        asked.append((len(observation.frames), torch.get_num_threads()))
        time.sleep(0.02)
        return act(observation)

    monkeypatch.setattr(checkpoint.policy, "act", slow)
    rate = control_rate(checkpoint, env, 0)
    env.close()
    assert asked == [(1, 1)] * (5 + TIMED)
    assert 1 < rate < 1 / 0.02


def test_results_name_the_checkpoint_as_the_user_did() -> None:
    assert given_name(resolve_checkpoint("default")) == "default"
    assert given_name(resolve_checkpoint("runs/track/checkpoint")) == "runs/track/checkpoint"


def test_as_many_workers_as_there_are_usable_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(module, "usable_cores", lambda: 3)
    monkeypatch.setattr(module, "run_jobs", lambda *_, workers, **__: asked.append(workers) or [])
    for jobs, workers in ((9, 0), (2, 0), (9, 5)):
        given = [module._Job(task="track", condition="policy", seeds=(i,)) for i in range(jobs)]
        with pytest.raises(module.EvaluationError):
            list(module._finish_all(given, Path(), EvalConfig(workers=workers)))
    assert asked == [3, 2, 5]


@pytest.mark.parametrize("controls", [("all",), ("none",), (), ("policy", "expert")])
def test_controls_are_named_as_on_the_command_line(controls: tuple[str, ...]) -> None:
    assert EvalConfig(controls=controls).controls == controls


@pytest.mark.usefixtures("one_process", "forget_tasks")
def test_a_variation_is_what_everybody_gets_and_is_written_down(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_task(replace(find_task("track"), name="mine", variations={"randomise": False}))
    made: list[Any] = []

    def note(spec: TaskSpec, **settings: Any) -> Env:
        made.append(spec.kwargs)
        return make_task(spec, **settings)

    monkeypatch.setattr(module, "make_task", note)
    config = EvalConfig(tasks=("mine",), episodes=1, workers=1, controls=(), variation={"randomise": True})
    results = evaluate(tiny_checkpoint, config)
    assert results.settings["variation"] == {"randomise": True}
    assert made
    assert all(kwargs["randomise"] is True for kwargs in made)
    with pytest.raises(ValueError, match="task 'track' has no variation 'randomise'; it has none"):
        evaluate(tiny_checkpoint, replace(config, tasks=("track",)))


def test_a_task_that_the_policy_cannot_do_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="task 'reach' needs action 'dz', the policy gives dx, dy"):
        evaluate(tiny_checkpoint, EvalConfig(tasks=("reach",), episodes=1))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"episodes": 0}, "episodes 0"),
        ({"workers": -1}, "workers -1"),
        ({"seed": -1}, "seed -1"),
        ({"timeout": 0.0}, "timeout"),
    ],
)
def test_bad_settings_are_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvalConfig(**bad)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"tasks": ("trak",)}, "did you mean track"),
        ({"controls": ("expert", "frozen_frame")}, "did you mean frozen_frames"),
        ({"controls": ("all", "expert")}, "control 'all' is unknown"),
    ],
)
def test_names_that_nobody_knows_are_refused(bad: dict[str, Any], message: str, tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(tiny_checkpoint, EvalConfig(**bad))


def test_workers_draw_only_what_is_looked_at(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def refuse(_task: str, **settings: Any) -> Env:
        asked.append(settings)
        raise ValueError("enough")

    monkeypatch.setattr(module, "make_task", refuse)
    pulse: Any = SimpleNamespace(beat=lambda *_: None)
    handle = module._prepare(pulse, (tiny_checkpoint, EvalConfig()))
    with pytest.raises(ValueError, match="enough"):
        handle(module._Job(task="track", condition="policy", seeds=(0,)))
    assert asked[0]["on_demand"]
