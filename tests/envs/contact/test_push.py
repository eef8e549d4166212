"""`push`: scenes that can be solved, words that decide, and success by contact alone."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.seeds import split_seed
from envs.actors import ExpertActor, NoisyExpert
from envs.contact.push import HELD_OUT_PAIRS, HORIZON, REST, TEMPLATES, PushTask, expert, read
from envs.contact.scene import BELOW, BLOCKS, MAT_HALF
from envs.contact.specs import SPECS
from envs.contract import check_contract
from envs.rollout import Scenario, run
from envs.tabletop.objects import COLOURS
from envs.task import find_task, guess_task, make_task, offers

ROOT = Path(__file__).parents[3]
SPEC = SPECS["push"][0]
EPISODES = 40


@pytest.fixture
def env() -> Iterator[Any]:
    """Without pictures, which take most of the time."""
    made = make_task("push", cameras=(), size=32, labels=False)
    yield made
    made.close()


@pytest.fixture
def play(env: Any) -> Callable[..., Any]:
    """Runs an actor on a test seed to the end."""

    def one(actor: Any, seed: int = 0, **options: str) -> Any:
        scenario = Scenario(options=options) if options else None
        [world] = run([env], [split_seed("test", seed)], actor, action_names=SPEC.action_names, scenario=scenario)
        return world

    return one


def task_of(env: Any) -> PushTask:
    while not isinstance(env, PushTask):
        env = env.env
    return env


class TestScene:
    def test_it_is_as_described(self) -> None:
        env = make_task("push", cameras=SPEC.cameras, size=32)
        check_contract(env, SPEC, SPEC.cameras, 32)
        assert task_of(env).horizon == HORIZON == SPEC.horizon
        env.close()

    def test_registering_it_loads_no_simulator(self) -> None:
        code = "import sys, envs.task; envs.task.find_task('push'); sys.exit('mujoco' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0

    def test_nothing_holds_a_block_but_contact(self, env: Any) -> None:
        model = task_of(env).model
        assert model.neq == 0  # no welds
        assert model.nu == 8  # six joints and two fingers
        assert (model.actuator_forcerange[-2:] == (-20, 20)).all()

    def test_what_is_not_used_stays_away(self, env: Any) -> None:
        for seed in range(20):
            env.reset(seed=seed)
            task, present = task_of(env), task_of(env).present()
            blocks = task.table.props.blocks
            if not present[BLOCKS - 1]:
                break
        for _ in range(20):
            env.step(np.zeros(3, np.float32))
        assert task.table.props.blocks[BLOCKS - 1, 2] == pytest.approx(BELOW, abs=1e-3)
        np.testing.assert_allclose(task.table.props.blocks[:3], blocks[:3], atol=2e-3)

    def test_colours_single_out_blocks_and_mats(self, env: Any) -> None:
        for seed in range(50):
            env.reset(seed=seed)
            task = task_of(env)
            assert len(set(task._blocks)) == len(task._blocks) in (3, 4)
            assert len(set(task._mats)) == len(task._mats) in (2, 3)
            assert (task._blocks[0], task._mats[0]) not in HELD_OUT_PAIRS
            assert not env.unwrapped.props.touched().any()
            assert not task._placed.any()

    def test_held_out_pairs_on_demand(self, env: Any) -> None:
        for seed in range(10):
            env.reset(seed=seed, options={"combinations": "held_out"})
            task = task_of(env)
            assert (task._blocks[0], task._mats[0]) in HELD_OUT_PAIRS
            assert task._blocks[0] in task.instruction
            assert task._mats[0] in task.instruction

    def test_a_seed_is_a_scene(self, env: Any) -> None:
        first, again = (env.reset(seed=7)[1]["privileged"] for _ in range(2))
        assert np.array_equal(first["blocks"], again["blocks"])
        assert np.array_equal(first["mats"], again["mats"])
        assert not np.array_equal(first["blocks"], env.reset(seed=8)[1]["privileged"]["blocks"])

    def test_boxes_are_around_what_is_meant(self) -> None:
        env = make_task("push", cameras=("front",), size=96)
        _, info = env.reset(seed=split_seed("test", 0))
        known, task = info["privileged"], task_of(env)
        for thing, point in ((known["target"], known["blocks"][0]), (known["goal"], known["mats"][0])):
            x, y = task.in_picture("front", point) or (0, 0)
            box = known["boxes"]["front"][thing]
            assert abs(box[0] - x) < 0.03
            assert abs(box[1] - y) < 0.03
        env.close()

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
    def test_a_copy_has_the_same_future_and_its_own(self, env: Any, copied: Callable[[Any], Any]) -> None:
        _, info = env.reset(seed=3)
        for _ in range(40):
            *_, info = env.step(expert(env, info))
        other = copied(env)
        for _ in range(20):
            *_, mine = env.step(expert(env, info))
            *_, theirs = other.step(expert(other, info))
            assert np.array_equal(mine["privileged"]["blocks"], theirs["privileged"]["blocks"])
            info = mine


class TestExpert:
    @pytest.mark.parametrize(("noise", "least"), [(0.0, 39), (0.3, 36)])
    def test_it_succeeds(self, play: Callable[..., Any], noise: float, least: int) -> None:
        actor = NoisyExpert(expert, noise, 0.0) if noise else ExpertActor(expert)
        assert sum(play(actor, seed).info["is_success"] for seed in range(EPISODES)) >= least

    def test_success_is_a_block_at_rest_on_its_mat(self, play: Callable[..., Any], env: Any) -> None:
        world = play(ExpertActor(expert))
        known = world.info["privileged"]
        assert (np.abs(known["blocks"][0, :2] - known["mats"][0, :2]) < MAT_HALF).all()
        assert task_of(env).table.props.speeds[0] < 0.01
        assert task_of(env)._placed[0, 0] == REST

    def test_doing_nothing_is_never_success(self, env: Any) -> None:
        env.reset(seed=0)
        over = False
        while not over:
            _, _, terminated, truncated, info = env.step(np.zeros(3, np.float32))
            over = terminated or truncated
        assert not info["is_success"]
        assert offers(env, "diagnosis")() == "never touched"


class TestWords:
    def test_another_thing_is_another_outcome(self, play: Callable[..., Any], env: Any) -> None:
        kinds = set()
        for seed in range(6):
            play(ExpertActor(expert), seed)
            task = task_of(env)
            words, index = task.counterfactual("train", np.random.default_rng(seed))
            assert words != task.instruction
            assert not task.judge(index)
            assert task.judge(0)
            kinds.add(index >= BLOCKS)
        assert kinds == {True, False}

    def test_pushing_another_block_is_called_so(self, env: Any) -> None:
        def swapped(info: dict[str, Any]) -> dict[str, Any]:
            known = dict(info["privileged"])
            known["blocks"] = known["blocks"][[1, 0, 2, 3]]
            return {"privileged": known}

        _, info = env.reset(seed=split_seed("test", 1))
        over = False
        while not over:
            _, _, terminated, truncated, info = env.step(expert(env, swapped(info)))
            over = terminated or truncated
        assert not info["is_success"]
        assert task_of(env).diagnosis() == "wrong block"

    def test_held_out_texts_have_known_words(self) -> None:
        known = {word for text in TEMPLATES.train for word in text.split()}
        for text in TEMPLATES.held_out:
            assert text not in TEMPLATES.train
            assert set(text.split()) <= known

    def test_a_users_words_are_read(self, env: Any) -> None:
        assert read("please push the red cube onto the green pad") == {"block": "red", "mat": "green"}
        assert guess_task("slide the blue block to the orange mat", ("reach", "track", "push")) == "push"
        for colour in COLOURS:
            env.reset(seed=1, options=read(f"push the {colour} cube onto the red mat"))
            assert task_of(env).target_name == f"{colour} cube (to the red mat)"
        for text in ("push the cube", "push the red cube", "push the red cube to the green and the blue mat"):
            with pytest.raises(ValueError, match=r"must name one (block|mat) by its colour"):
                read(text)

    def test_the_spec_reads_too(self) -> None:
        assert find_task("push").read("push the red cube onto the green mat") == {"block": "red", "mat": "green"}


def test_the_reward_grows_on_the_way(env: Any) -> None:
    _, info = env.reset(seed=split_seed("test", 2))
    rewards, over = [], False
    while not over:
        _, reward, terminated, truncated, info = env.step(expert(env, info))
        assert reward == pytest.approx(sum(task_of(env).reward_terms().values()))
        rewards.append(reward)
        over = terminated or truncated
    assert info["is_success"]
    assert rewards[-1] > 0.5 > 0 > rewards[0]
    assert np.mean(np.diff(rewards) > -1e-3) > 0.8
