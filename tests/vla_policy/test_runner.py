"""Frame history, receding horizon and ensembling, against what they should be step by step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.evaluation import RunnerConfig
from vla_policy.checkpoint import load_checkpoint
from vla_policy.contract import Observation
from vla_policy.runner import PolicyActor, PolicyRunner, ensemble

SIZE = 32  # pixels a side of the tiny policy's pictures


def _seen(step: int, shade: int | None = None) -> dict[str, Any]:
    picture = np.full((SIZE, SIZE, 3), step if shade is None else shade, dtype=np.uint8)
    return {"pixels": {"front": picture}, "agent_pos": np.full(12, step, dtype=np.float32)}


def _runner(path: Path, rows: int = 2, **kwargs: Any) -> tuple[PolicyRunner, list[Observation]]:
    runner = PolicyRunner(load_checkpoint(path), rows, RunnerConfig(**kwargs))
    asked: list[Observation] = []
    act = runner.policy.act

    def spy(observation: Observation) -> Any:
        asked.append(observation)
        return act(observation)

    runner.policy.act = spy  # type: ignore[method-assign]
    return runner, asked


def test_history_is_strided_and_padded_with_the_first_frame(tiny_checkpoint: Path) -> None:
    runner, asked = _runner(tiny_checkpoint, execute=1)
    runner.reset(["follow the red ball", None])
    for step in range(12):
        runner.act([_seen(step), None])
    stride = runner.policy.config.frame_stride
    newest = [int(o.frames[0, -1, 0, 0, 0, 0]) for o in asked]
    oldest = [int(o.frames[0, 0, 0, 0, 0, 0]) for o in asked]
    assert newest == list(range(12))
    assert oldest == [max(step - 2 * stride, 0) for step in range(12)]
    assert [float(o.agent_pos[0, 1, 0]) for o in asked] == [max(step - stride, 0) for step in range(12)]


def test_frozen_history_repeats_the_newest_frame(tiny_checkpoint: Path) -> None:
    runner, asked = _runner(tiny_checkpoint, execute=1)
    runner.reset(["follow the red ball", None], frozen=True)
    for step in range(9):
        runner.act([_seen(step), None])
    assert asked[-1].frames[0].unique().tolist() == [8]


def test_a_chunk_is_executed_before_the_policy_is_asked_again(tiny_checkpoint: Path) -> None:
    runner, asked = _runner(tiny_checkpoint, execute=3)
    runner.reset(["follow the red ball", None])
    actions = []
    for step in range(6):
        actions.append(runner.act([_seen(step), None])[0])
        if step == 0:
            assert runner.chunk is not None
            first = runner.chunk.action[0].numpy()
    assert len(asked) == runner.decisions == 2
    np.testing.assert_array_equal(np.stack(actions[:3]), first[:3])


@pytest.mark.parametrize("execute", [1, 3, 4])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("ages", [(), (9, 2, 0)])
def test_only_pictures_that_a_decision_needs_are_looked_at(
    save_tiny: Callable[..., Path], execute: int, frozen: bool, ages: tuple[int, ...]
) -> None:
    checkpoint = save_tiny(policy={"frame_ages": ages})
    looked: list[int] = []

    class Watched(dict[str, Any]):
        def __init__(self, step: int) -> None:
            super().__init__(_seen(step)["pixels"])
            self.step = step

        def __getitem__(self, camera: str) -> Any:
            looked.append(self.step)
            return super().__getitem__(camera)

    runner, asked = _runner(checkpoint, execute=execute)
    runner.reset(["follow the red ball", None], frozen=frozen)
    for step in range(40):
        runner.act([{**_seen(step), "pixels": Watched(step)}, None])
    ages = runner.policy.config.ages
    needed = set()
    for decision, observation in zip(range(0, 40, execute), asked, strict=True):
        steps = [max(decision - (0 if frozen else age), 0) for age in ages]
        assert [int(observation.frames[0, i, 0, 0, 0, 0]) for i in range(len(ages))] == steps
        needed.update(steps)
    unused = set(looked) - needed
    assert all(step + ages[0] >= 40 - execute for step in unused)  # for decisions that did not come
    assert needed <= set(looked)


@pytest.mark.parametrize("m", [0.5, 0.0, -0.5])
def test_ensembling_averages_all_predictions_of_a_step(tiny_checkpoint: Path, m: float) -> None:
    """Weights exp(-m · i) with i = 0 for the oldest prediction (Zhao et al. 2023, section 4)."""
    runner, asked = _runner(tiny_checkpoint, execute=1, ensemble=m)
    runner.reset(["follow the red ball", None])
    plans: list[np.ndarray] = []
    for step in range(7):
        action = runner.act([_seen(step, shade=40 * step), None])[0]
        assert runner.chunk is not None
        plans.append(runner.chunk.action[0].numpy())
        made_at = range(max(0, step + 1 - len(plans[0])), step + 1)  # the oldest first
        weights = np.array([np.exp(-m * i) for i in range(len(made_at))])
        parts = [w * plans[made][step - made] for w, made in zip(weights, made_at, strict=True)]
        np.testing.assert_allclose(action, sum(parts) / weights.sum(), rtol=1e-5)
    assert len(asked) == 7


@pytest.mark.parametrize(("m", "favoured"), [(3.0, 0), (-3.0, 2)])
def test_above_zero_the_oldest_prediction_counts_most(m: float, favoured: int) -> None:
    """Three chunks, each of which says its own number for every step: 0 is the oldest."""
    chunks = [np.full((1, 3, 1), number, np.float32) for number in range(3)]
    assert ensemble(chunks, m)[0, 0] == pytest.approx(favoured, abs=0.1)
    assert ensemble(chunks, 0.0)[0, 0] == pytest.approx(1)


@pytest.mark.parametrize("training", [True, False])
def test_a_policy_that_is_being_trained_stays_so(tiny_checkpoint: Path, training: bool) -> None:
    runner, _ = _runner(tiny_checkpoint)
    runner.policy.train(training)
    modes: list[bool] = []
    act = runner.policy.act
    runner.policy.act = lambda seen: modes.append(runner.policy.training) or act(seen)  # type: ignore[method-assign]
    runner.reset(["follow the red ball", None])
    runner.act([_seen(0), None])
    assert modes == [False]
    assert runner.policy.training is training
    assert runner.policy.encoder.training is training


def test_nor_does_one_that_fails_while_it_acts(tiny_checkpoint: Path) -> None:
    runner, _ = _runner(tiny_checkpoint)
    runner.policy.train()

    def fail(_: Observation) -> Any:
        raise RuntimeError("no memory")

    runner.policy.act = fail  # type: ignore[method-assign]
    runner.reset(["follow the red ball", None])
    with pytest.raises(RuntimeError, match="no memory"):
        runner.act([_seen(0), None])
    assert runner.policy.training


def test_a_row_does_not_depend_on_the_others(tiny_checkpoint: Path) -> None:
    alone, _ = _runner(tiny_checkpoint)
    together, _ = _runner(tiny_checkpoint)
    alone.reset(["follow the red ball", None])
    together.reset(["follow the red ball", "track the blue cube"])
    for step in range(5):
        a = alone.act([_seen(step), None])[0]
        b = together.act([_seen(step), _seen(99)])[0]
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bad", [{"execute": 0}, {"execute": 2, "ensemble": 0.1}, {"ensemble": -1.0}])
def test_impossible_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"execute|ensemble"):
        RunnerConfig(**bad)


def test_executing_more_than_a_chunk_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="execute 9 exceeds the policy's chunk of 4"):
        PolicyRunner(load_checkpoint(tiny_checkpoint), 1, RunnerConfig(execute=9))


class _Robot:
    """What the actor needs of a world."""

    def __init__(self, names: tuple[str, ...], step: int = 0) -> None:
        self.observation, self.instruction, self.action_names = _seen(step), "follow the red ball", names
        self.scale = self

    def to_task(self, unit: np.ndarray) -> np.ndarray:
        return 10 * unit


def test_an_actor_gives_each_task_its_own_actions_in_its_order_and_units(tiny_checkpoint: Path) -> None:
    alone, _ = _runner(tiny_checkpoint, rows=3)
    alone.reset(["follow the red ball", None, "follow the red ball"])
    dx, dy = alone.act([_seen(0), None, _seen(0)])[0]
    runner, _ = _runner(tiny_checkpoint, rows=3)
    actor = PolicyActor(runner)
    worlds = [_Robot(("dy", "dx")), None, _Robot(("dy",))]
    actor.reset(worlds)
    both, idle, one = actor.act(worlds)
    np.testing.assert_array_equal(both, [10 * dy, 10 * dx])
    np.testing.assert_allclose(one, [10 * dy], rtol=1e-5)  # another row: the last bits may differ
    assert idle is None


def test_an_actor_may_show_the_newest_frame_alone(tiny_checkpoint: Path) -> None:
    runner, asked = _runner(tiny_checkpoint, rows=1, execute=1)
    actor = PolicyActor(runner, frozen=True)
    actor.reset([_Robot(("dx", "dy"))])
    for step in range(9):
        actor.act([_Robot(("dx", "dy"), step)])
    assert asked[-1].frames.unique().tolist() == [8]


def test_other_words_are_read_from_the_next_decision_on_and_nothing_seen_is_forgotten(tiny_checkpoint: Path) -> None:
    runner, asked = _runner(tiny_checkpoint, execute=1)
    runner.reset(["follow the red ball", "follow the red ball"])
    for step in range(6):
        if step == 4:
            runner.instruct(0, "track the blue cube")
        runner.act([_seen(step), _seen(step)])
    assert (asked[3].tokens[0] == asked[3].tokens[1]).all()
    assert (asked[4].tokens[0] != asked[4].tokens[1]).any()
    assert (asked[4].tokens[1] == asked[3].tokens[1]).all()
    assert (asked[4].frames[0] == asked[4].frames[1]).all()  # the same history


def test_what_was_predicted_under_other_words_is_not_averaged_with_what_follows(tiny_checkpoint: Path) -> None:
    runner, _ = _runner(tiny_checkpoint, execute=1, ensemble=0.1)
    runner.reset(["follow the red ball", "follow the red ball"])
    for step in range(4):
        together = runner.act([_seen(step), _seen(step)])
    np.testing.assert_array_equal(together[0], together[1])
    runner.instruct(0, "follow the red ball")  # even if they are the same
    actions = runner.act([_seen(4), _seen(4)])
    assert runner.chunk is not None
    newest = runner.chunk.action[:, 0].numpy()
    np.testing.assert_array_equal(actions[0], newest[0])
    assert (actions[1] != newest[1]).any()


def test_an_actor_reads_a_worlds_instruction_anew_at_every_step(tiny_checkpoint: Path) -> None:
    runner, asked = _runner(tiny_checkpoint, rows=1, execute=1)
    world = _World()
    actor = PolicyActor(runner)
    actor.reset([world])
    actor.act([world])
    world.instruction = "track the blue cube"
    actor.act([world])
    assert (asked[0].tokens != asked[1].tokens).any()


class _World:
    """What `PolicyActor` needs of one."""

    def __init__(self) -> None:
        self.observation, self.instruction, self.action_names = _seen(0), "follow the red ball", ("dx", "dy")
        self.scale = self

    def to_task(self, unit: np.ndarray) -> np.ndarray:
        return unit
