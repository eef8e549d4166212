"""`push`: colours single out blocks and mats, and success is a block at rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from envs.actors import ExpertActor
from envs.contact.push import BLOCKS, HELD_OUT_PAIRS, REST, expert, free, read
from envs.contact.scene import MAT_HALF
from envs.guessing import guess_task
from envs.tabletop.objects import COLOURS


@pytest.fixture
def env(make: Any) -> Any:
    return make("push")


def test_colours_single_out_blocks_and_mats(env: Any, task_of: Callable[[Any], Any]) -> None:
    for seed in range(50):
        env.reset(seed=seed)
        task = task_of(env)
        for part, counts in ((task.colours[:BLOCKS], (3, 4)), (task.colours[BLOCKS:], (2, 3))):
            named = [colour for colour in part if colour]
            assert len(set(named)) == len(named) in counts
        assert (task.colours[0], task.colours[BLOCKS]) not in HELD_OUT_PAIRS
        assert not task.table.props.touching().any()
        assert not task._placed.any()


def test_held_out_pairs_on_demand(env: Any, task_of: Callable[[Any], Any]) -> None:
    for seed in range(10):
        env.reset(seed=seed, options={"combinations": "held_out"})
        task = task_of(env)
        assert (task.colours[0], task.colours[BLOCKS]) in HELD_OUT_PAIRS
        assert str(task.colours[0]) in task.instruction
        assert str(task.colours[BLOCKS]) in task.instruction


def test_success_is_a_block_at_rest_on_its_mat(play: Any, env: Any, task_of: Callable[[Any], Any]) -> None:
    known = play(env, "push", ExpertActor(expert)).info["privileged"]
    assert (np.abs(known["bodies"][0, :2] - known["fixtures"][0, :2]) < MAT_HALF).all()
    assert task_of(env).table.props.speeds[0] < 0.01
    assert task_of(env)._placed[0, 0] == REST


def test_other_words_mean_what_can_be_done_just_as_well(env: Any, task_of: Callable[[Any], Any]) -> None:
    kinds = set()
    for seed in range(25):
        env.reset(seed=seed)
        task = task_of(env)
        _, index = task.counterfactual("train", np.random.default_rng(seed))
        block, mat = task._meant(index)
        assert (task.colours[block], task.colours[BLOCKS + mat]) not in HELD_OUT_PAIRS
        props = task.table.props
        there = [i for i in np.flatnonzero(task.present()[:BLOCKS]) if i != block]
        assert free(props.bodies[block, :2], props.fixtures[mat, :2], props.bodies[there, :2])
        kinds.add(index < BLOCKS)
    assert kinds == {True, False}


def test_a_users_words_are_read(env: Any, task_of: Callable[[Any], Any]) -> None:
    assert read("please push the red cube onto the green pad") == {"block": "red", "mat": "green"}
    assert guess_task("slide the blue block to the orange mat", ("reach", "track", "push")) == "push"
    for colour in COLOURS:
        env.reset(seed=1, options=read(f"push the {colour} cube onto the red mat"))
        assert task_of(env).target_name == f"{colour} cube (to the red mat)"
    for text in (
        "push the cube",
        "push the red cube",
        "push the red cube to the green and the blue mat",
        "push the red cube off the green mat",
    ):
        with pytest.raises(ValueError, match=r"must name one (block|mat) by its colour"):
            read(text)
