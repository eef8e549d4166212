"""The flat observation: what Stable-Baselines3 checks, what it can learn from, and that nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    VecVideoRecorder,
)

from envs.tabletop.env import TabletopEnv
from envs.task import find_task, make_task
from envs.text import INSTRUCTION_CHARACTERS, MAX_INSTRUCTION
from envs.wrappers import FlatObservation, StateObservation

MakeEnv = Callable[..., TabletopEnv]


@pytest.fixture
def flat(task: str) -> Iterator[FlatObservation]:
    env = FlatObservation(gymnasium.make(find_task(task).env_id, cameras=("front", "wrist")))
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


def make_flat(**settings: Any) -> Callable[[], gymnasium.Env[Any, Any]]:
    return lambda: FlatObservation(gymnasium.make("envs:vla/Track-v0", size=40, labels="none", **settings))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda venv: VecFrameStack(venv, 3),
        lambda venv: VecNormalize(venv, norm_obs=True),
        lambda venv: VecNormalize(VecFrameStack(venv, 2), norm_obs_keys=["agent_pos"]),
        VecTransposeImage,
        lambda venv: VecTransposeImage(VecFrameStack(venv, 2)),
        VecMonitor,
    ],
)
@pytest.mark.parametrize("algorithm", [PPO, SAC])
def test_wrappers_of_stable_baselines_take_it(wrap: Any, algorithm: Any) -> None:
    venv = wrap(DummyVecEnv([make_flat(cameras=("front",)) for _ in range(2)]))
    settings = {"n_steps": 4, "batch_size": 4} if algorithm is PPO else {"buffer_size": 8}
    model = algorithm("MultiInputPolicy", venv, device="cpu", seed=0, **settings)
    venv.seed(0)
    observation = venv.reset()
    for _ in range(2):
        assert all(observation[key].shape == (2, *space.shape) for key, space in venv.observation_space.items())
        action, _ = model.predict(observation)
        observation, reward, done, infos = venv.step(action)
    assert reward.shape == done.shape == (2,)
    assert {"is_success", "privileged"} <= set(infos[0])
    venv.close()


def test_monitor_takes_it() -> None:
    env = Monitor(make_flat(cameras=("front",))())
    env.reset(seed=0)
    over = False
    while not over:
        _, _, terminated, truncated, info = env.step(np.zeros(2, np.float32))
        over = terminated or truncated
    assert info["episode"]["l"] == env.unwrapped.horizon
    env.close()


def make_state(task: str) -> Callable[[], gymnasium.Env[Any, Any]]:
    return lambda: StateObservation(make_task(task, cameras=(), size=32, labels=False))


@pytest.mark.parametrize("start", ["fork", "forkserver", "spawn"])
def test_processes_run_it_however_they_are_started(start: str) -> None:
    """Pictures in one process, states in the other kind: the same as in this process."""
    for make in (make_flat(cameras=("front",)), make_state("push")):
        seen = []
        for venv in (DummyVecEnv([make]), SubprocVecEnv([make], start_method=start)):
            venv.seed(7)
            first = venv.reset()
            venv.step_async(np.zeros((1, *venv.action_space.shape), np.float32))
            second, rewards, _, infos = venv.step_wait()
            assert "is_success" in infos[0]
            seen.append((first, second, rewards))
            venv.close()
        for one, other in zip(*seen, strict=True):
            parts = [(one[key], other[key]) for key in one] if isinstance(one, dict) else [(one, other)]
            for got, expected in parts:
                np.testing.assert_allclose(got, expected, rtol=1e-6)  # one of them has rewards in float32


def test_it_is_evaluated_as_it_learns(tmp_path: Path) -> None:
    """`EvalCallback` reads success from the info."""
    judged, worlds = (VecMonitor(DummyVecEnv([make_state("push")])) for _ in range(2))
    model = SAC("MlpPolicy", worlds, buffer_size=50, learning_starts=100, device="cpu", seed=0)
    callback = EvalCallback(judged, n_eval_episodes=1, eval_freq=8, log_path=str(tmp_path), verbose=0)
    model.learn(8, callback=callback)
    with np.load(tmp_path / "evaluations.npz") as found:
        assert found["successes"].shape == (1, 1)
        assert found["ep_lengths"][0, 0] == find_task("push").horizon
    judged.close()
    worlds.close()


def test_frames_are_stacked_with_their_words() -> None:
    venv = VecFrameStack(DummyVecEnv([make_flat(cameras=("front",))]), 2)
    venv.seed(3)
    venv.reset()
    observation, *_ = venv.step(np.zeros((1, 2)))
    words = observation["instruction"][0]
    assert observation["front"].shape == (1, 40, 40, 6)
    assert words.shape == (2 * MAX_INSTRUCTION,)
    np.testing.assert_array_equal(words[:MAX_INSTRUCTION], words[MAX_INSTRUCTION:])
    assert words.any()
    venv.close()


def test_stable_baselines_records_videos(tmp_path: Path) -> None:
    pytest.importorskip("moviepy", reason="it writes the videos")
    venv = VecVideoRecorder(
        DummyVecEnv([make_flat(cameras=("front",), render_mode="rgb_array")]),
        str(tmp_path),
        record_video_trigger=lambda step: step == 0,
        video_length=3,
    )
    venv.reset()
    for _ in range(4):
        venv.step(np.zeros((1, 2)))
    venv.close()
    assert list(tmp_path.glob("*.mp4"))


def test_stable_baselines_can_render_what_it_records() -> None:
    venv = DummyVecEnv([make_flat(cameras=("front",), render_mode="rgb_array") for _ in range(2)])
    assert venv.render_mode == "rgb_array"
    venv.reset()
    assert venv.render().std() > 10
    venv.close()


@pytest.mark.parametrize(("text", "message"), [("follow the bäll", "character 'ä'"), ("a" * 121, "121 characters")])
def test_a_text_outside_its_space_is_refused_in_one_line(text: str, message: str, make_env: MakeEnv) -> None:
    env = FlatObservation(make_env("track"))
    inner, _ = env.env.reset(seed=0)
    with pytest.raises(ValueError, match=f"has .*{message}; the text space takes 120"):
        env.observation({**inner, "instruction": text})


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
        assert "".join(characters[int(code)] for code in observation["instruction"]) == inner["instruction"]
        assert flat.get_wrapper_attr("task_description") == inner["instruction"]


def test_the_longest_text_fits(make_env: MakeEnv) -> None:
    env = FlatObservation(make_env("track"))
    inner, _ = env.env.reset(seed=0)
    longest = (INSTRUCTION_CHARACTERS * 3)[:MAX_INSTRUCTION]
    codes = env.observation({**inner, "instruction": longest})["instruction"]
    assert codes in env.observation_space["instruction"]
    assert (codes > 0).all()
    assert isinstance(env.observation_space["instruction"], spaces.Box)


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
