"""A run is checked as a whole before anything of it starts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from configs.collect import CollectConfig
from configs.evaluation import EvalConfig, RunnerConfig
from configs.policy import HeadConfig, PolicyConfig
from configs.run import RunConfig, find_run, named_runs
from training.commands import check_demonstrable

PLAN_STEPS = CollectConfig().plan_steps


def run(chunk: int, execute: int = 1) -> RunConfig:
    return RunConfig(
        policy=PolicyConfig(head=HeadConfig(chunk=chunk)),
        eval=EvalConfig(runner=RunnerConfig(execute=execute)),
    )


def test_the_longest_chunk_that_labels_and_execution_allow_is_fine() -> None:
    check_demonstrable(run(PLAN_STEPS, PLAN_STEPS))


def test_a_chunk_longer_than_the_labels_is_refused() -> None:
    with pytest.raises(ValueError, match=rf"policy\.head\.chunk {PLAN_STEPS + 1} exceeds the {PLAN_STEPS} steps"):
        check_demonstrable(run(PLAN_STEPS + 1))
    longer = replace(run(PLAN_STEPS + 1), collect=CollectConfig(plan_steps=PLAN_STEPS + 1))
    check_demonstrable(longer)


def test_executing_more_than_is_predicted_is_refused() -> None:
    with pytest.raises(ValueError, match=r"eval\.runner\.execute 4 exceeds policy\.head\.chunk 3"):
        run(3, 4)


def test_tasks_and_cameras_have_to_be_there() -> None:
    with pytest.raises(ValueError, match="tasks is empty"):
        RunConfig(tasks=())
    with pytest.raises(ValueError, match="did you mean track"):
        check_demonstrable(RunConfig(tasks=("trak",)))
    with pytest.raises(ValueError, match=r"policy\.cameras has 'front', which collect\.cameras does not record"):
        check_demonstrable(replace(RunConfig(), collect=CollectConfig(cameras=("wrist",))))
    with pytest.raises(ValueError, match=r"collect\.cameras has 'top', task 'track' offers front, wrist"):
        check_demonstrable(RunConfig(collect=CollectConfig(cameras=("front", "top"))))


def test_an_unknown_run_names_the_nearest() -> None:
    assert find_run("debug").is_file()
    with pytest.raises(ValueError, match=r"config 'debgu' is unknown \(did you mean debug\?\); give a YAML file or"):
        find_run("debgu")
    with pytest.raises(ValueError, match=r"config 'no/such\.yaml': no such file; give a YAML file or one of"):
        find_run("no/such.yaml")
    assert "debug" in named_runs()


def test_the_window_of_track_event_spans_its_episode_and_says_when() -> None:
    from configs.options import parse, run_config, run_parser
    from envs.task import find_task

    policy = run_config(parse(run_parser("train", "track_event"), ["--config", "track_event"])).policy
    assert policy.ages[0] >= find_task("track_event").horizon - 1
    assert policy.grounding.interval_weight > 0
