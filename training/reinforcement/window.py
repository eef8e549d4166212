"""Tasks as a policy decides in them: what it sees at each decision, and several control steps as one action.

T frames, V cameras, L words, P proprioception, E control steps that are executed of a chunk, A actions, F features.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from configs.seeds import collection_seed
from envs.task import ActionScale, Env, TaskSpec, instruction_of, offers
from vla_policy.checkpoint import Checkpoint
from vla_policy.contract import Observation
from vla_policy.policy import VLAPolicy
from vla_policy.runner import history_of

PARTS = ("frames", "agent_pos", "tokens", "token_mask")


class WindowEnv(gymnasium.Wrapper[dict[str, Any], np.ndarray, dict[str, Any], np.ndarray]):
    """An observation is what the policy's network takes: `frames` (T, V, 3, H, W) uint8, `agent_pos` (T, P), `tokens`
    (L,) and `token_mask` (L,). An action is the next E control steps, (E · A,) in [-1, 1]; the reward is their sum, of
    `dense_reward()` where the task offers one. Every reset draws the next scene of a collection of demonstrations.

    Args:
        env: the task, with the policy's cameras and size.
        checkpoint: whose decisions they are; its network is not used here.
        execute: E.
        seed: of the collection; see `configs.seeds.collection_seed`.
    """

    def __init__(self, env: Env, spec: TaskSpec, checkpoint: Checkpoint, execute: int, seed: int) -> None:
        super().__init__(env)
        config, shapes = checkpoint.policy.config, checkpoint.policy.shapes
        self._cameras, self._execute, self._seed, self.scenes = config.cameras, execute, seed, 0
        self._back = list(config.ages)
        self._pixels: deque[np.ndarray] = deque(maxlen=self._back[0] + 1)
        self._agent_pos: deque[np.ndarray] = deque(maxlen=self._back[0] + 1)
        self._tokenizer, names = checkpoint.tokenizer, checkpoint.purpose.action_names
        self._order = [names.index(name) for name in spec.action_names]
        self._scale, self._actions = ActionScale(env.action_space), len(names)
        self._dense = offers(env, "dense_reward")
        words, side = config.language.max_words, (shapes.size, shapes.size)
        self.observation_space = spaces.Dict(
            {
                "frames": spaces.Box(0, 255, (shapes.frames, shapes.cameras, 3, *side), np.uint8),
                "agent_pos": spaces.Box(-np.inf, np.inf, (shapes.frames, shapes.proprioception), np.float32),
                "tokens": spaces.Box(0, shapes.vocabulary, (words,), np.int64),
                "token_mask": spaces.Box(0, 1, (words,), np.bool_),
            }
        )
        self.action_space = spaces.Box(-1.0, 1.0, (execute * self._actions,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        drawn = collection_seed("train", self._seed, self.scenes) if seed is None else seed
        self.scenes += seed is None
        seen, _ = self.env.reset(seed=drawn, options=options)
        ids, mask = self._tokenizer.encode([instruction_of(self.env, seen)])
        self._tokens, self._mask = ids[0], mask[0].astype(np.bool_)
        self._pixels.clear()
        self._agent_pos.clear()
        self._see(seen)
        return self._window(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        total, terminated, truncated = 0.0, False, False
        success = False
        for part in np.asarray(action, np.float32).reshape(self._execute, self._actions):
            seen, reward, terminated, truncated, info = self.env.step(self._scale.to_task(part[self._order]))
            total += float(reward) if self._dense is None else float(self._dense())
            success = bool(info["is_success"])
            self._see(seen)
            if terminated or truncated:
                break
        return self._window(), total, terminated, truncated, {"is_success": success}

    def _see(self, seen: dict[str, Any]) -> None:
        self._pixels.append(np.stack([seen["pixels"][name] for name in self._cameras]))
        self._agent_pos.append(np.array(seen["agent_pos"], np.float32))

    def _window(self) -> dict[str, Any]:
        frames = history_of(self._pixels, self._back)
        return {
            "frames": np.moveaxis(frames, -1, 2),
            "agent_pos": history_of(self._agent_pos, self._back),
            "tokens": self._tokens,
            "token_mask": self._mask,
        }


class FeatureVecEnv(VecEnvWrapper):
    """Windows as features (F,) float32 of a network that does not change."""

    def __init__(self, venv: VecEnv, policy: VLAPolicy, features: int) -> None:
        super().__init__(venv, observation_space=spaces.Box(-np.inf, np.inf, (features,), np.float32))
        self._policy = policy

    def reset(self) -> VecEnvObs:
        return self._features(self.venv.reset())

    def step_wait(self) -> VecEnvStepReturn:
        windows, rewards, dones, infos = self.venv.step_wait()
        last = [info for info in infos if "terminal_observation" in info]
        if last:
            ends = {name: np.stack([info["terminal_observation"][name] for info in last]) for name in PARTS}
            for info, features in zip(last, self._features(ends), strict=True):
                info["terminal_observation"] = features
        return self._features(windows), rewards, dones, infos

    def _features(self, windows: Any) -> np.ndarray:
        return features_of(self._policy, Observation(**{name: torch.from_numpy(windows[name]) for name in PARTS}))


@torch.no_grad()
def features_of(policy: VLAPolicy, observation: Observation) -> np.ndarray:
    """What the action head gets, (B, F) float32."""
    features: np.ndarray = policy(observation).action.float().numpy()
    return features
