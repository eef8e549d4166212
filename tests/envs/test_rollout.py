"""Groups of episodes: what a watcher is told, how results come about, and how fast one robot would be."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eval.rollout import GROUP, NEAR, TIMED, WARM_UP, _Run, control_rate, one_thread, run_group

from configs.evaluation import RunnerConfig
from envs.tabletop.env import TabletopEnv
from envs.task import make_task
from envs.workers import NOTHING
from eval.controls import CONTROLS
from vla_policy.checkpoint import SHIPPED, Checkpoint, load_checkpoint
from vla_policy.contract import Aux
from vla_policy.runner import PolicyRunner


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture
def env() -> Iterator[TabletopEnv]:
    made = make_task("track", cameras=("front",))
    yield made
    made.close()


def _group(checkpoint: Checkpoint, env: TabletopEnv, condition: str = "policy", **options: Any) -> Any:
    controller = PolicyRunner(checkpoint, GROUP, RunnerConfig())
    rows: list[int | None] = [None] * GROUP
    rows[3] = 5
    [episode] = run_group(checkpoint, controller, [env] * GROUP, rows, CONTROLS[condition], **options)
    return episode


def test_every_piece_of_work_is_a_beat_and_names_whose_it_is(checkpoint: Checkpoint, env: TabletopEnv) -> None:
    beats: list[int] = []
    episode = _group(checkpoint, env, beat=lambda seed=NOTHING: beats.append(seed))
    assert episode.steps == env.horizon
    assert set(beats) == {5, NOTHING}
    # A start, every step and the metrics are the seed's own; what the network does is nobody's.
    assert Counter(beats) == {5: env.horizon + 2, NOTHING: env.horizon + 1}


def test_the_caller_sees_each_moment_before_the_step(checkpoint: Checkpoint, env: TabletopEnv) -> None:
    moments: list[tuple[int, np.ndarray, np.ndarray, str]] = []

    def note(env: TabletopEnv, seen: dict[str, Any], read: str, action: np.ndarray) -> None:
        np.testing.assert_array_equal(env._pictures().draw(env._data, "front"), seen["pixels"]["front"])
        moments.append((env.step_count, env.privileged()["hand"], action, read))

    episode = _group(checkpoint, env, on_step=note)
    steps, hands, actions, read = zip(*moments, strict=True)
    assert steps == tuple(range(env.horizon))
    assert set(read) == {episode.instruction}
    env.reset(seed=5)
    for hand, action in zip(hands[:20], actions[:20], strict=True):
        np.testing.assert_array_equal(env.privileged()["hand"], hand)
        env.step(action)


@pytest.mark.parametrize(
    ("near", "diagnosis"), [(0, "never near the target"), (1, "lost the target"), (50, "too imprecise")]
)
def test_failures_are_diagnosed_by_distance(near: int, diagnosis: str, env: TabletopEnv) -> None:
    env.reset(seed=0)
    run = _Run(env, 0, 0, CONTROLS["policy"], None, None)
    errors = np.array([NEAR - 0.001] * near + [NEAR + 0.001] * (60 - near))
    assert run._diagnose(errors) == diagnosis


def test_a_task_that_knows_what_went_wrong_is_asked_first(env: TabletopEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    env.reset(seed=0)
    monkeypatch.setattr(env, "fault", lambda index: f"dropped {index}")
    run = _Run(env, 0, 0, CONTROLS["policy"], None, None)
    assert run._diagnose(np.zeros(60)) == f"dropped {env.layout.target}"


def test_the_predicted_box_is_compared_with_the_true_one(
    checkpoint: Checkpoint, env: TabletopEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = checkpoint.policy.act

    def told(observation: Any) -> Any:
        chunk = act(observation)
        secret = env.privileged()
        x, y, w, h = secret["boxes"]["front"][secret["target"]]
        # Half as wide as it should be, in the row that is in use.
        chunk.aux.boxes[3, -1] = torch.tensor([x - w / 4, y, w / 2, h])
        return chunk

    monkeypatch.setattr(checkpoint.policy, "act", told)
    episode = _group(checkpoint, env)
    assert episode.box_iou == pytest.approx(0.5, abs=1e-5)
    assert episode.tube.tube_iou == pytest.approx(0.5, abs=1e-5)  # the whole episode on both sides
    assert episode.tube.temporal_iou is None


@pytest.mark.parametrize("condition", ["policy", "shuffled_instruction"])
def test_the_event_is_compared_with_that_of_what_was_read(condition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told of an event that is 15 steps late, with the right boxes, for the object that the words name."""
    late, env = 15, make_task("track_event", cameras=("front",))
    checkpoint = load_checkpoint(SHIPPED / "track_event")
    act, decisions = checkpoint.policy.act, []
    env.reset(seed=5)
    rng = np.random.default_rng((5, 2))
    wanted = env.layout.target if condition == "policy" else env.counterfactual("train", rng)[1]
    begin, end = env.privileged()["events"][wanted]

    def told(observation: Any) -> Any:
        chunk, step = act(observation), env.step_count
        decisions.append(step)
        assert chunk.aux.boxes is not None
        boxes, during = torch.zeros_like(chunk.aux.boxes), torch.zeros(chunk.aux.boxes.shape[:2])
        boxes[3, -1] = torch.from_numpy(env.privileged()["boxes"]["front"][wanted])
        during[3, -1] = 0.9 * (begin + late <= step < end)
        return replace(chunk, aux=Aux(boxes=boxes, during=during))

    monkeypatch.setattr(checkpoint.policy, "act", told)
    tube = _group(checkpoint, env, condition).tube
    env.close()
    true = {step for step in decisions if begin <= step < end}
    found = {step for step in decisions if begin + late <= step < end}
    assert 0 < len(found) < len(true)
    assert tube.temporal_iou == pytest.approx(len(found) / len(true))
    assert 0 < tube.tube_iou <= 1
    assert tube.box_iou == pytest.approx(1, abs=1e-5)


def test_the_control_rate_is_that_of_one_robot(
    checkpoint: Checkpoint, env: TabletopEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    act = checkpoint.policy.act

    def slow(observation: Any) -> Any:
        asked.append((len(observation.frames), torch.get_num_threads()))
        time.sleep(0.02)
        return act(observation)

    monkeypatch.setattr(checkpoint.policy, "act", slow)
    rate = control_rate(checkpoint, env, 0)
    assert asked == [(1, 1)] * (WARM_UP + TIMED)
    assert 1 < rate < 1 / 0.02


def test_one_thread_is_for_a_while_only() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with pytest.raises(KeyError), one_thread():
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
