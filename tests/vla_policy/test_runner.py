"""Frame history, receding horizon and ensembling, against what they should be step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.evaluation import RunnerConfig
from vla_policy.checkpoint import load_checkpoint
from vla_policy.contract import Observation
from vla_policy.runner import PolicyRunner


def _seen(step: int, shade: int | None = None) -> dict[str, Any]:
    picture = np.full((64, 64, 3), step if shade is None else shade, dtype=np.uint8)
    return {"pixels": {"front": picture}, "agent_pos": np.full(12, step, dtype=np.float32)}


def _controller(path: Path, rows: int = 2, **kwargs: Any) -> tuple[PolicyRunner, list[Observation]]:
    controller = PolicyRunner(load_checkpoint(path), rows, RunnerConfig(**kwargs))
    asked: list[Observation] = []
    act = controller.policy.act

    def spy(observation: Observation) -> Any:
        asked.append(observation)
        return act(observation)

    controller.policy.act = spy  # type: ignore[method-assign]
    return controller, asked


def test_history_is_strided_and_padded_with_the_first_frame(tiny_checkpoint: Path) -> None:
    controller, asked = _controller(tiny_checkpoint, execute=1)
    controller.reset(["follow the red ball", None])
    for step in range(12):
        controller.act([_seen(step), None])
    stride = controller.policy.config.frame_stride
    newest = [int(o.frames[0, -1, 0, 0, 0, 0]) for o in asked]
    oldest = [int(o.frames[0, 0, 0, 0, 0, 0]) for o in asked]
    assert newest == list(range(12))
    assert oldest == [max(step - 2 * stride, 0) for step in range(12)]
    assert [float(o.agent_pos[0, 1, 0]) for o in asked] == [max(step - stride, 0) for step in range(12)]


def test_frozen_history_repeats_the_newest_frame(tiny_checkpoint: Path) -> None:
    controller, asked = _controller(tiny_checkpoint, execute=1)
    controller.reset(["follow the red ball", None], frozen=True)
    for step in range(9):
        controller.act([_seen(step), None])
    assert asked[-1].frames[0].unique().tolist() == [8]


def test_a_chunk_is_executed_before_the_policy_is_asked_again(tiny_checkpoint: Path) -> None:
    controller, asked = _controller(tiny_checkpoint, execute=3)
    controller.reset(["follow the red ball", None])
    actions = []
    for step in range(6):
        actions.append(controller.act([_seen(step), None])[0])
        if step == 0:
            assert controller.chunk is not None
            first = controller.chunk.action[0].numpy()
    assert len(asked) == controller.decisions == 2
    np.testing.assert_array_equal(np.stack(actions[:3]), first[:3])


def test_ensembling_averages_all_predictions_of_a_step(tiny_checkpoint: Path) -> None:
    controller, _ = _controller(tiny_checkpoint, execute=1, ensemble=0.5)
    controller.reset(["follow the red ball", None])
    plans = []
    for step in range(6):
        action = controller.act([_seen(step, shade=40 * step), None])[0]
        assert controller.chunk is not None
        plans.append(controller.chunk.action[0].numpy())
        ages = range(min(step + 1, len(plans[0])))
        weights = np.array([np.exp(-0.5 * age) for age in ages])
        expected = sum(w * plans[step - age][age] for w, age in zip(weights, ages, strict=True)) / weights.sum()
        np.testing.assert_allclose(action, expected, rtol=1e-5)


def test_a_row_does_not_depend_on_the_others(tiny_checkpoint: Path) -> None:
    alone, _ = _controller(tiny_checkpoint)
    together, _ = _controller(tiny_checkpoint)
    alone.reset(["follow the red ball", None])
    together.reset(["follow the red ball", "track the blue cube"])
    for step in range(5):
        a = alone.act([_seen(step), None])[0]
        b = together.act([_seen(step), _seen(99)])[0]
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bad", [{"execute": 0}, {"execute": 2, "ensemble": 0.1}, {"execute": 1, "ensemble": -1.0}])
def test_impossible_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"execute|ensemble"):
        RunnerConfig(**bad)


def test_executing_more_than_a_chunk_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="execute 9 exceeds the policy's chunk of 4"):
        PolicyRunner(load_checkpoint(tiny_checkpoint), 1, RunnerConfig(execute=9))
