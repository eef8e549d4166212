"""What is looked at before a task is worked in, and how what breaks the contract is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from envs.contract import check_contract
from envs.task import TaskSpec, find_task, make_task, use_task_modules


@pytest.fixture
def env(foreign: Path) -> Any:
    use_task_modules([str(foreign)])
    return make_task("dots/plain", cameras=("top", "side"), size=32)


def check(env: Any, spec: TaskSpec | None = None) -> None:
    check_contract(env, spec or find_task("dots/plain"), ("top", "side"), 32)


def test_it_is_kept(env: Any) -> None:
    check(env)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"action_names": ("a", "b", "c")}, "2 actions, the task's description names 3"),
        ({"agent_pos_names": ("x", "y", "z")}, r"agent_pos is \(2,\) float32, expected \(3,\) float32"),
        ({"control_hz": 20}, r"metadata\['render_fps'\] is 5, the task's description says control_hz 20"),
        ({"horizon": 99}, "registered with max_episode_steps 12, the task's description says horizon 99"),
    ],
)
def test_the_description_differs(env: Any, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^task 'dots/plain': {words}$"):
        check(env, replace(find_task("dots/plain"), **change))


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Discrete(4), "must be a Box with one axis"),
        (spaces.Box(-1, 1, (2, 2)), "must be a Box with one axis"),
        (spaces.Box(-np.inf, np.inf, (2,)), r"must have finite bounds; wrap it in gymnasium\.wrappers\.Rescale"),
        (spaces.Box(0, 0, (2,)), "must have finite bounds"),
    ],
)
def test_actions_that_no_policy_can_give(env: Any, space: Any, words: str) -> None:
    env.unwrapped.action_space = space
    with pytest.raises(ValueError, match=words):
        check(env)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda seen: np.zeros(3), "an observation must be a dict with 'pixels' and 'agent_pos'"),
        (lambda seen: {"pixels": seen["pixels"]}, "an observation must be a dict with 'pixels' and 'agent_pos'"),
        (
            lambda seen: {**seen, "agent_pos": seen["agent_pos"].astype(float)},
            r"agent_pos is \(2,\) float64, expected \(2,\) float32",
        ),
        (lambda seen: {**seen, "agent_pos": [0.0, 0.0]}, r"agent_pos is a list, expected"),
        (
            lambda seen: {**seen, "pixels": {"top": seen["pixels"]["top"]}},
            r"pixels\['side'\] is a NoneType, expected \(32, 32, 3\) uint8",
        ),
        (
            lambda seen: {**seen, "pixels": {**seen["pixels"], "side": np.zeros((32, 48, 3), np.uint8)}},
            r"pixels\['side'\] is \(32, 48, 3\) uint8, expected \(32, 32, 3\) uint8",
        ),
        (
            lambda seen: {**seen, "pixels": {**seen["pixels"], "top": np.zeros((32, 32, 3))}},
            r"pixels\['top'\] is \(32, 32, 3\) float64, expected \(32, 32, 3\) uint8",
        ),
    ],
    ids=["no dict", "no agent_pos", "float64", "list", "no camera", "not square", "not bytes"],
)
def test_an_observation_that_differs(env: Any, spoil: Callable[[Any], Any], words: str) -> None:
    reset = env.unwrapped.reset
    env.unwrapped.reset = lambda **options: (spoil(reset(**options)[0]), {"is_success": False})
    with pytest.raises(ValueError, match=f"^task 'dots/plain': {words}"):
        check(env)


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({}, "nothing"),
        ({"is_success": None}, "None"),
        ({"is_success": 0.5}, "0.5"),
        ({"is_success": np.zeros(1)}, r"array\(\[0\.\]\)"),
    ],
)
def test_no_word_of_success(env: Any, info: dict[str, Any], words: str) -> None:
    reset = env.unwrapped.reset
    env.unwrapped.reset = lambda **options: (reset(**options)[0], info)
    words = rf"^task 'dots/plain': info\['is_success'\] is {words}, expected whether the episode so far is a success$"
    with pytest.raises(ValueError, match=words):
        check(env)


def _fail(*_: Any, **__: Any) -> Any:
    raise KeyError("two\nlines")


@pytest.mark.parametrize(("method", "words"), [("reset", r"reset\(seed=0\) failed"), ("step", r"step\(\) failed")])
def test_what_somebodys_code_raises_is_one_line_that_says_where(env: Any, method: str, words: str) -> None:
    setattr(env.unwrapped, method, _fail)
    with pytest.raises(
        ValueError, match=rf"^task 'dots/plain': {words}: KeyError: .*test_contract\.py, line"
    ) as caught:
        check(env)
    assert "\n" not in str(caught.value)


class TestLabels:
    """Boxes may be there; then they are whole, alike in every step, and say which thing is meant."""

    @pytest.fixture
    def labelled(self, foreign: Path) -> Any:
        use_task_modules([str(foreign)])
        return make_task("dots/labelled", cameras=("top", "side"), size=32)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"target": None}, "privileged\\['target'\\] is None, expected one of its 2 things"),
            ({"target": 2}, "privileged\\['target'\\] is 2, expected one of its 2 things"),
            ({"visible": {}}, r"privileged\['visible'\]\['top'\] is a NoneType, expected \(O,\)"),
            (
                {"boxes": dict.fromkeys(("top", "side"), np.zeros((2, 3), np.float32))},
                r"privileged\['boxes'\]\['top'\] is \(2, 3\) float32, expected \(O, 4\)",
            ),
            (
                {"visible": dict.fromkeys(("top", "side"), np.ones(3, bool))},
                r"info\['privileged'\] labels different numbers of things",
            ),
        ],
    )
    def test_that_do_not_fit_are_refused(self, labelled: Any, change: dict[str, Any], words: str) -> None:
        info = labelled.unwrapped._info
        labelled.unwrapped._info = lambda: {**info(), "privileged": {**info()["privileged"], **change}}
        with pytest.raises(ValueError, match=f"^task 'dots/labelled': {words}"):
            check(labelled, find_task("dots/labelled"))

    def test_whose_number_changes_are_refused(self, labelled: Any) -> None:
        bare = labelled.unwrapped
        info = bare._info

        def fewer() -> dict[str, Any]:
            known = info()
            if bare.step_count:
                for name in ("boxes", "visible"):
                    known["privileged"][name] = {c: v[:1] for c, v in known["privileged"][name].items()}
                known["privileged"]["target"] = 0
            return known

        bare._info = fewer
        with pytest.raises(ValueError, match=r"shapes in info\['privileged'\] changed from .* to .* in one step"):
            check(labelled, find_task("dots/labelled"))

    def test_an_expert_that_plans_needs_them(self, labelled: Any) -> None:
        planning = replace(find_task("dots/labelled"), expert="envs.tabletop.tasks.track:EXPERT")
        with pytest.raises(ValueError, match="its expert plans for every thing, which needs present; see envs/task"):
            check(labelled, planning)
