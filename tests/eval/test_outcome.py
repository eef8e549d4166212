"""What becomes of an episode: boxes and events against the truth, and why it failed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from configs.evaluation import RunnerConfig
from envs.rollout import Recorder, run
from envs.tabletop.env import NEAR, TabletopEnv
from envs.task import find_task, make_task, use_task_modules
from eval.acting import GROUP, make_actor
from eval.controls import CONTROLS
from eval.outcome import OutcomeRecorder, truth_at
from eval.results import EpisodeResult
from vla_policy.checkpoint import SHIPPED, Checkpoint, load_checkpoint
from vla_policy.contract import Aux
from vla_policy.runner import PolicyRunner

ROW = 3


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture
def env() -> Iterator[TabletopEnv]:
    made = make_task("track", cameras=("front",), size=32)
    yield made.unwrapped  # type: ignore[misc]
    made.close()


def play(
    checkpoint: Checkpoint, env: Any, task: str, condition: str = "policy", recorders: tuple[Recorder, ...] = ()
) -> EpisodeResult:
    """One episode of seed 5 in a row of a full group."""
    spec, shown = find_task(task), CONTROLS[condition]
    runner = PolicyRunner(checkpoint, GROUP, RunnerConfig())
    outcome = OutcomeRecorder(runner if shown.actor == "policy" else None)
    seeds: list[int | None] = [None] * GROUP
    seeds[ROW] = 5
    run(
        [env] * GROUP,
        seeds,
        make_actor(shown, runner, spec),
        [outcome, *recorders],
        action_names=spec.action_names,
        scenario=shown.scenario,
    )
    [row] = outcome.results
    assert row == ROW
    return outcome.results[ROW]


@pytest.mark.parametrize(
    ("near", "diagnosis"), [(0, "never near the target"), (1, "lost the target"), (50, "too imprecise")]
)
def test_failures_are_diagnosed_by_distance(
    near: int, diagnosis: str, env: TabletopEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    env.reset(seed=0)
    errors = np.array([NEAR - 0.001] * near + [NEAR + 0.001] * (60 - near))
    monkeypatch.setattr(env, "judged_errors", lambda: errors)
    assert env.diagnosis() == diagnosis


def test_a_task_that_knows_what_went_wrong_is_asked_first(env: TabletopEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    env.reset(seed=0)
    monkeypatch.setattr(env, "fault", lambda index: f"dropped {index}")
    assert env.diagnosis() == f"dropped {env.layout.target}"


class TestEnds:
    """What a task says at the end of an episode, and what is made of it."""

    def end(self, *, success: bool = False, stable: bool | None = None, **offered: Any) -> EpisodeResult:
        class Env(SimpleNamespace):
            def has_wrapper_attr(self, name: str) -> bool:
                return hasattr(self, name)

            def get_wrapper_attr(self, name: str) -> Any:
                return getattr(self, name)

        info = {"is_success": success} if stable is None else {"is_success": success, "stable": stable}
        world: Any = SimpleNamespace(
            env=Env(**offered), info=info, row=0, seed=4, step=7, named=None, instruction="a", task_instruction="b"
        )
        recorder = OutcomeRecorder()
        recorder.begin(world)
        recorder.end(world)
        return recorder.results[0]

    def test_a_task_that_offers_nothing(self) -> None:
        assert self.end() == EpisodeResult(
            seed=4, success=False, steps=7, instruction="a", task_instruction="b", failure="not done in time"
        )
        assert self.end(success=True).failure == ""

    def test_its_diagnosis_and_errors(self) -> None:
        found = self.end(
            diagnosis=lambda: "dropped", tracking_errors=lambda: [0.12345, 0.2], judged_errors=lambda: [0.2, 0.4]
        )
        assert found.failure == "dropped"
        assert found.errors_m == [0.123, 0.2]
        assert found.mean_error_m == pytest.approx(0.3)
        assert self.end(diagnosis=lambda: "").failure == "not done in time"
        assert self.end(judged_errors=lambda: np.zeros(0)).mean_error_m is None

    def test_a_simulation_that_broke_down_is_no_failure_of_the_policys(self) -> None:
        found = self.end(success=True, stable=False, diagnosis=lambda: "dropped", tracking_errors=lambda: [np.nan])
        assert (found.success, found.valid, found.failure) == (False, False, "unstable simulation")
        assert found.errors_m == []


def test_the_predicted_box_is_compared_with_the_true_one(
    checkpoint: Checkpoint, env: TabletopEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = checkpoint.policy.act

    def told(observation: Any) -> Any:
        chunk = act(observation)
        secret = env.privileged()
        x, y, w, h = secret["boxes"]["front"][secret["target"]]
        # Half as wide as it should be, in the row that is in use.
        chunk.aux.boxes[ROW, -1] = torch.tensor([x - w / 4, y, w / 2, h])
        return chunk

    monkeypatch.setattr(checkpoint.policy, "act", told)
    episode = play(checkpoint, env, "track")
    assert episode.box_iou == pytest.approx(0.5, abs=1e-5)
    assert episode.tube is not None
    assert episode.tube.tube_iou == pytest.approx(0.5, abs=1e-5)  # the whole episode on both sides
    assert episode.tube.temporal_iou is None
    assert play(checkpoint, env, "track", "random_action").box_iou is None


@pytest.mark.parametrize("condition", ["policy", "shuffled_instruction"])
def test_the_event_is_compared_with_that_of_what_was_read(condition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told of an event that is 15 steps late, with the right boxes, for the object that the words name."""
    checkpoint = load_checkpoint(SHIPPED / "track_event")
    late, size = 15, checkpoint.policy.shapes.size
    made = make_task("track_event", cameras=("front",), size=size)
    env: Any = made.unwrapped
    act, decisions = checkpoint.policy.act, []
    env.reset(seed=5)
    rng = np.random.default_rng((5, 2))
    wanted = env.layout.target if condition == "policy" else env.counterfactual("train", rng)[1]
    begin, end = env.privileged()["events"][wanted]
    first = act

    def told(observation: Any) -> Any:
        step = env.step_count
        decisions.append(step)
        chunk = kept[0] if kept else first(observation)  # what it does is no matter here
        kept[:] = [chunk]
        assert chunk.aux.boxes is not None
        boxes, during = torch.zeros_like(chunk.aux.boxes), torch.zeros(chunk.aux.boxes.shape[:2])
        boxes[ROW, -1] = torch.from_numpy(env.privileged()["boxes"]["front"][wanted])
        during[ROW, -1] = 0.9 * (begin + late <= step < end)
        return replace(chunk, aux=Aux(boxes=boxes, during=during))

    kept: list[Any] = []
    monkeypatch.setattr(checkpoint.policy, "act", told)
    tube = play(checkpoint, made, "track_event", condition).tube
    made.close()
    assert tube is not None
    true = {step for step in decisions if begin <= step < end}
    found = {step for step in decisions if begin + late <= step < end}
    assert 0 < len(found) < len(true)
    assert tube.temporal_iou == pytest.approx(len(found) / len(true))
    assert tube.tube_iou is not None
    assert 0 < tube.tube_iou <= 1
    assert tube.box_iou == pytest.approx(1, abs=1e-5)


def test_a_task_with_boxes_alone_has_one_event(foreign: Path) -> None:
    use_task_modules([str(foreign)])
    env = make_task("dots/labelled", cameras=("top",), size=32)
    _, info = env.reset(seed=0)
    known = info["privileged"]
    during, box, visible = truth_at(known, "top", known["target"], 9)
    assert (during, visible) == (True, True)
    np.testing.assert_array_equal(box, known["boxes"]["top"][known["target"]])
