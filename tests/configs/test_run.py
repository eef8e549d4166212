"""A run is checked as a whole before anything of it starts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from configs.collect import CollectConfig
from configs.evaluation import EvalConfig, RunnerConfig
from configs.policy import HeadConfig, PolicyConfig
from configs.run import RunConfig
from training.collect import PLAN_STEPS


def run(chunk: int, execute: int = 1) -> RunConfig:
    return RunConfig(
        policy=PolicyConfig(head=HeadConfig(chunk=chunk)),
        eval=EvalConfig(controller=RunnerConfig(execute=execute)),
    )


def test_the_longest_chunk_that_labels_and_execution_allow_is_fine() -> None:
    assert run(PLAN_STEPS, PLAN_STEPS).policy.head.chunk == PLAN_STEPS


def test_a_chunk_longer_than_the_labels_is_refused() -> None:
    with pytest.raises(ValueError, match=rf"policy\.head\.chunk {PLAN_STEPS + 1} exceeds the {PLAN_STEPS} steps"):
        run(PLAN_STEPS + 1)


def test_executing_more_than_is_predicted_is_refused() -> None:
    with pytest.raises(ValueError, match=r"eval\.controller\.execute 4 exceeds policy\.head\.chunk 3"):
        run(3, 4)


def test_tasks_and_cameras_have_to_be_there() -> None:
    with pytest.raises(ValueError, match="tasks is empty"):
        RunConfig(tasks=())
    with pytest.raises(ValueError, match="did you mean track"):
        RunConfig(tasks=("trak",))
    with pytest.raises(ValueError, match=r"policy\.cameras has 'front', which collect\.cameras does not record"):
        replace(RunConfig(), collect=CollectConfig(cameras=("wrist",)))


def test_the_window_of_track_event_spans_its_episode_and_says_when() -> None:
    from configs.options import parse, run_config, run_parser
    from envs.tabletop.tasks.track_event import HORIZON

    policy = run_config(parse(run_parser("train", "", "track_event"), ["--config", "track_event"])).policy
    assert (policy.frames - 1) * policy.frame_stride >= HORIZON - 1
    assert policy.grounding.interval_weight > 0
