"""The flat observation: what Stable-Baselines3 checks, what it can learn from, and that nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env

from envs.tabletop.env import INSTRUCTION_CHARACTERS, MAX_INSTRUCTION, TabletopEnv
from envs.task import TASK_IDS
from envs.wrappers import FlatObservation

MakeEnv = Callable[..., TabletopEnv]


@pytest.fixture
def flat(task: str) -> Iterator[FlatObservation]:
    env = FlatObservation(gymnasium.make(TASK_IDS[task][0], cameras=("front", "wrist")))
    yield env
    env.close()


def test_stable_baselines3_finds_nothing_to_say(flat: FlatObservation) -> None:
    check_env(flat, warn=True)  # warnings are errors here


def test_ppo_learns_a_few_steps() -> None:
    env = FlatObservation(gymnasium.make("envs:vla/Track-v0", cameras=("front",), labels="none", size=40))
    model = PPO("MultiInputPolicy", env, n_steps=16, batch_size=8, n_epochs=1, device="cpu", seed=0)
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(16)
    assert model.num_timesteps == 16
    assert any(not old.equal(new) for old, new in zip(before, model.policy.parameters(), strict=True))
    action, _ = model.predict(env.reset(seed=0)[0], deterministic=True)
    assert action in env.action_space
    env.close()


def test_nothing_is_lost(flat: FlatObservation) -> None:
    characters = ["", *sorted(INSTRUCTION_CHARACTERS)]
    for seed in range(5):
        observation, _ = flat.reset(seed=seed)
        inner, _ = flat.env.reset(seed=seed)
        assert observation in flat.observation_space
        assert set(observation) == {"front", "wrist", "agent_pos", "instruction"}
        np.testing.assert_array_equal(observation["front"], inner["pixels"]["front"])
        np.testing.assert_array_equal(observation["wrist"], inner["pixels"]["wrist"])
        np.testing.assert_array_equal(observation["agent_pos"], inner["agent_pos"])
        assert "".join(characters[code] for code in observation["instruction"]) == inner["instruction"]
        assert flat.get_wrapper_attr("task_description") == inner["instruction"]


def test_the_longest_text_fits(make_env: MakeEnv) -> None:
    env = FlatObservation(make_env("track"))
    inner, _ = env.env.reset(seed=0)
    longest = (INSTRUCTION_CHARACTERS * 3)[:MAX_INSTRUCTION]
    codes = env.observation({**inner, "instruction": longest})["instruction"]
    assert codes in env.observation_space["instruction"]
    assert (codes > 0).all()
    assert isinstance(env.observation_space["instruction"], spaces.MultiDiscrete)


def test_it_is_part_of_the_spec(make_env: MakeEnv) -> None:
    env = FlatObservation(gymnasium.make("envs:vla/Reach-v0", size=32))
    again = gymnasium.make(env.spec)
    assert isinstance(again, FlatObservation)
    assert again.observation_space == env.observation_space
    env.close(), again.close()


def test_other_environments_are_refused() -> None:
    env = gymnasium.make("CartPole-v1")
    with pytest.raises(ValueError, match="has an instruction; got Box"):
        FlatObservation(env)
    env.close()
