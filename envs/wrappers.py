"""Observations in forms that Stable-Baselines3 takes: a flat dict of boxes and codes without text, or the state alone.

K numbers of the state.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from configs.seeds import collection_seed
from envs.task import Env, offers


class FlatObservation(
    gymnasium.ObservationWrapper[dict[str, Any], np.ndarray, dict[str, Any]],
    gymnasium.utils.RecordConstructorArgs,
):
    """Cameras become keys of their own, and the instruction a box of codes, one for each possible character.

    `instruction` is (L,) float32 with L the longest text; code 0 fills the end, code i + 1 is character i of the text
    space's character list, in sorted order. As every space is a `Box`, frames can be stacked and values normalised.
    Codes are names, not amounts: a features extractor that learns words from them embeds them.

    Raises:
        ValueError: the environment is no task with an instruction, or a camera's name is taken.
    """

    def __init__(self, env: gymnasium.Env[dict[str, Any], np.ndarray]) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        inner = env.observation_space
        if not isinstance(inner, spaces.Dict) or not isinstance(inner.get("instruction"), spaces.Text):
            raise ValueError(
                f"FlatObservation wraps the tasks of envs, whose observation has an instruction; got {inner}"
            )
        text, pixels = inner["instruction"], inner["pixels"]
        assert isinstance(text, spaces.Text)
        assert isinstance(pixels, spaces.Dict)
        if taken := {"agent_pos", "instruction"} & set(pixels.spaces):
            raise ValueError(f"camera {min(taken)!r} has the name of another part of the flat observation; rename it")
        self._codes = {character: code for code, character in enumerate(sorted(text.character_set), start=1)}
        self._length = text.max_length
        self.observation_space = spaces.Dict(
            {
                **pixels.spaces,
                "agent_pos": inner["agent_pos"],
                "instruction": spaces.Box(0, len(self._codes), (self._length,), np.float32),
            }
        )

    def observation(self, observation: dict[str, Any]) -> dict[str, np.ndarray]:
        text = observation["instruction"]
        unknown = sorted(set(text) - set(self._codes))
        if unknown or len(text) > self._length:
            got = f"the character {unknown[0]!r}" if unknown else f"{len(text)} characters"
            raise ValueError(f"instruction {text!r} has {got}; the text space takes {self._length} of its own")
        codes = np.zeros(self._length, dtype=np.float32)
        codes[: len(text)] = [self._codes[character] for character in text]
        return {**observation["pixels"], "agent_pos": observation["agent_pos"], "instruction": codes}


class StateObservation(
    gymnasium.Wrapper[np.ndarray, np.ndarray, dict[str, Any], np.ndarray], gymnasium.utils.RecordConstructorArgs
):
    """A task as those see it who learn from its state: `expert_state()` as the observation (K,) float32,
    `dense_reward()` as the reward where the task offers one, and `is_success` in the info. A reset without a seed draws
    the next scene of those that a collection of demonstrations with this seed would. `told` is the task's own info of
    the newest step, which its expert needs.

    Args:
        env: the task; made without cameras, it draws nothing.
        seed: of the collection; see `configs.seeds.collection_seed`.

    Raises:
        ValueError: the task does not offer its state.
    """

    def __init__(self, env: Env, *, seed: int = 0) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, seed=seed)
        super().__init__(env)
        env.reset(seed=0)
        self.observation_space = spaces.Box(-np.inf, np.inf, state_of(env).shape, np.float32)
        self._dense = offers(env, "dense_reward")
        self._seed, self.scenes = seed, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        drawn = collection_seed("train", self._seed, self.scenes) if seed is None else seed
        self.scenes += seed is None
        _, self.told = self.env.reset(seed=drawn, options=options)
        return state_of(self.env), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        _, reward, terminated, truncated, self.told = self.env.step(action)
        reward = float(reward) if self._dense is None else float(self._dense())
        return state_of(self.env), reward, terminated, truncated, {"is_success": bool(self.told["is_success"])}


def state_of(env: Env) -> np.ndarray:
    """What an expert that is learned sees, (K,) float32.

    Raises:
        ValueError: the task does not offer it.
    """
    state = offers(env, "expert_state")
    if state is None:
        called = env.spec.id if env.spec else type(env.unwrapped).__name__
        raise ValueError(f"{called} offers no expert_state(), from which an expert can learn; see envs/task.py")
    return np.asarray(state(), np.float32)
