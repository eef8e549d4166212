"""What all tasks with contact promise: success by contact alone, experts that hold out, scenes that a seed decides."""

from __future__ import annotations

import copy
import importlib
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from configs.seeds import split_seed
from envs.actors import ExpertActor, NoisyExpert
from envs.contact.scene import BELOW
from envs.contact.specs import SPECS
from envs.contract import check_contract
from envs.rollout import Scenario, run
from envs.task import find_task, make_task, offers

EPISODES = 20

pytestmark = pytest.mark.parametrize("name", sorted(SPECS))


def test_it_is_as_described(name: str, task_of: Callable[[Any], Any]) -> None:
    spec = find_task(name)
    env = make_task(name, cameras=spec.cameras, size=32)
    check_contract(env, spec, spec.cameras, 32)
    assert task_of(env).horizon == spec.horizon
    assert task_of(env).actions == spec.action_names
    assert spec.read(spec.example)
    env.close()


def test_nothing_holds_a_thing_but_contact(name: str, make: Any, task_of: Callable[[Any], Any]) -> None:
    model = task_of(make(name)).model
    assert model.neq == 0  # no welds
    assert model.nu == 8  # six joints and two fingers
    assert (model.actuator_forcerange[-2:] == (-20, 20)).all()


def test_what_is_not_used_stays_away(name: str, make: Any, task_of: Callable[[Any], Any]) -> None:
    env, seen = make(name), 0
    for seed in range(8):
        env.reset(seed=seed)
        task = task_of(env)
        away = ~task.present()[: len(task.bodies)]
        for _ in range(10):
            env.step(np.zeros(env.action_space.shape, np.float32))
        heights = task.table.props.bodies[:, 2]
        np.testing.assert_allclose(heights[away], BELOW, atol=1e-3)
        assert (heights[~away] > 0).all()
        seen += int(away.sum())
    assert seen or name == "place"


def test_a_seed_is_a_scene(name: str, make: Any) -> None:
    env = make(name)
    first, again = (env.reset(seed=7)[1]["privileged"]["bodies"] for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, env.reset(seed=8)[1]["privileged"]["bodies"])


def test_boxes_are_around_what_is_meant(name: str, make: Any, task_of: Callable[[Any], Any]) -> None:
    env = make(name, cameras=("front",), size=96, labels=True)
    _, info = env.reset(seed=split_seed("test", 3))
    known, task = info["privileged"], task_of(env)
    assert known["visible"]["front"][known["target"]]
    x, y = task.in_picture("front", known["bodies"][known["target"]]) or (0, 0)
    box = known["boxes"]["front"][known["target"]]
    assert abs(box[0] - x) < 0.04
    assert abs(box[1] - y) < 0.04


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_has_the_same_future_and_its_own(name: str, copied: Callable[[Any], Any], make: Any) -> None:
    env, expert = make(name, cameras=("front",)), find_task(name).make_expert()
    _, info = env.reset(seed=3)
    for _ in range(15):
        *_, info = env.step(expert(env, info))
    other = copied(env)
    for _ in range(15):
        seen, *_, mine = env.step(expert(env, info))
        also, *_, theirs = other.step(expert(other, info))
        assert np.array_equal(mine["privileged"]["bodies"], theirs["privileged"]["bodies"])
        assert np.array_equal(seen["pixels"]["front"], also["pixels"]["front"])
        info = mine
    other.close()


@pytest.mark.parametrize(("noise", "least"), [(0.0, 19), (0.2, 17)])
def test_the_expert_succeeds(name: str, noise: float, least: int, make: Any, play: Any) -> None:
    env, expert = make(name), find_task(name).make_expert()
    actor = NoisyExpert(expert, noise, 0.0) if noise else ExpertActor(expert)
    assert sum(play(env, name, actor, seed).info["is_success"] for seed in range(EPISODES)) >= least


def test_doing_nothing_is_never_success(name: str, make: Any, finish: Any) -> None:
    env = make(name)
    info = finish(env, lambda _: np.zeros(env.action_space.shape, np.float32), 0)
    assert not info["is_success"]
    assert offers(env, "diagnosis")() == "never touched"


def test_another_thing_is_another_outcome(name: str, make: Any, play: Any, task_of: Callable[[Any], Any]) -> None:
    env, expert = make(name), find_task(name).make_expert()
    for seed in range(4):
        play(env, name, ExpertActor(expert), seed)
        task = task_of(env)
        words, index = task.counterfactual("train", np.random.default_rng(seed))
        assert words != task.instruction
        assert task.present()[index]
        assert task.judge(task.target)
        assert not task.judge(index)


def test_the_expert_does_what_other_words_say(name: str, make: Any, task_of: Callable[[Any], Any]) -> None:
    env, expert = make(name), find_task(name).make_expert()
    done = 0
    for seed in range(8):
        scenario = Scenario(counterfactual=True)
        [world] = run(
            [env],
            [split_seed("test", seed)],
            ExpertActor(expert),
            action_names=find_task(name).action_names,
            scenario=scenario,
        )
        assert not world.info["is_success"]
        done += task_of(env).judge(world.named)
    assert done >= 7


def test_what_is_foreseen_comes_and_leaves_no_trace(name: str, make: Any, task_of: Callable[[Any], Any]) -> None:
    env, expert = make(name), find_task(name).make_expert()
    _, info = env.reset(seed=split_seed("test", 1))
    task = task_of(env)
    for step in range(24):
        if step % 12 == 0:
            before = task.data.qpos.copy()
            ahead = task.foresee(expert, 12)
            other = next(i for i, aim in enumerate(task.aims[:, 0]) if aim >= 0 and i != task.target)
            towards_other = task.foresee(expert, 12, other)
            assert np.array_equal(task.data.qpos, before)
            assert np.abs(ahead - towards_other).max() > 0.05
        action = expert(env, info)
        np.testing.assert_array_equal(action, ahead[step % 12])
        *_, info = env.step(action)


def test_words_there_are_for_all_that_can_be_meant(name: str, make: Any, task_of: Callable[[Any], Any]) -> None:
    env, several = make(name), 0
    for seed in range(20):
        env.reset(seed=seed)
        task = task_of(env)
        texts = task.instructions(np.random.default_rng(seed))
        assert texts[task.target] == task.instruction
        assert [text is not None for text in texts] == (task.aims[:, 0] >= 0).tolist()
        named = [i for i, text in enumerate(texts) if text is not None]
        assert all(task.present()[body] for body, _ in task.aims[named])
        several += len(named) > 2
        # A reader of the words finds the same things.
        for i in named:
            options = find_task(name).read(texts[i])
            assert options == task.meaning(i)
            assert task.named(options) == i
    assert several > 5


def test_taking_another_thing_is_called_so(name: str, make: Any, finish: Any, task_of: Callable[[Any], Any]) -> None:
    env, expert = make(name), find_task(name).make_expert()

    def swapped(info: dict[str, Any]) -> np.ndarray:
        """What the expert would do if another body were meant."""
        known, task = info["privileged"], task_of(env)
        meant = task.target
        other = next(i for i in range(len(task.bodies)) if task.present()[i] and i != meant)
        order = np.arange(len(task.bodies))
        order[[meant, other]] = other, meant
        lists = {
            key: known[key][order] for key in ("bodies", "yaws", "velocities", "turning", "gripped") if key in known
        }
        action: np.ndarray = expert(env, {"privileged": {**known, **lists}})
        return action

    info = finish(env, swapped, 5)
    assert not info["is_success"]
    assert task_of(env).diagnosis().startswith("wrong ")


def test_words_of_other_tasks_stay_theirs(name: str) -> None:
    spec = find_task(name)
    for other in ("reach", "track"):
        templates = importlib.import_module(f"envs.tabletop.tasks.{other}").TEMPLATES
        for text in (*templates.train, *templates.held_out):
            with pytest.raises(ValueError, match="instruction"):
                spec.read(text.format(it="red cube"))


def test_held_out_texts_have_known_words(name: str) -> None:
    module: Any = importlib.import_module(f"envs.contact.{name}")
    found = [value for key, value in vars(module).items() if type(value).__name__ == "Templates"]
    assert found
    for templates in found:
        known = {word for text in templates.train for word in text.split()}
        for text in templates.held_out:
            assert text not in templates.train
            assert set(text.split()) <= known


def test_the_reward_grows_on_the_way(name: str, make: Any, task_of: Callable[[Any], Any]) -> None:
    env, expert = make(name), find_task(name).make_expert()
    _, info = env.reset(seed=split_seed("test", 2))
    rewards, over = [], False
    while not over:
        _, reward, terminated, truncated, info = env.step(expert(env, info))
        assert reward == pytest.approx(sum(task_of(env).reward_terms().values()))
        rewards.append(reward)
        over = terminated or truncated
    assert info["is_success"]
    assert rewards[-1] > 3 > 1 > rewards[0]
    assert min(rewards) >= 0  # else it would pay to fail, where that ends an episode
    assert np.mean(np.diff(rewards) > -0.03) > 0.8
    # Nothing that goes on to the end instead pays more: not even the best step before it, again and again.
    left = task_of(env).horizon - len(rewards)
    assert sum(rewards) > sum(rewards[:-1]) + (left + 1) * max(rewards[:-1])
