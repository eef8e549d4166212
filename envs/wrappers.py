"""The observation in a form that Stable-Baselines3 takes: one flat dict of boxes and codes, no text."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class FlatObservation(
    gymnasium.ObservationWrapper[dict[str, Any], np.ndarray, dict[str, Any]],
    gymnasium.utils.RecordConstructorArgs,
):
    """Cameras become keys of their own, and the instruction an array of codes, one for each possible character.

    `instruction` is (L,) with L the longest text; code 0 fills the end, code i + 1 is character i of the text space's
    character list, in sorted order.
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
        self._codes = {character: code for code, character in enumerate(sorted(text.character_set), start=1)}
        self._length = text.max_length
        self.observation_space = spaces.Dict(
            {
                **pixels.spaces,
                "agent_pos": inner["agent_pos"],
                "instruction": spaces.MultiDiscrete([len(self._codes) + 1] * self._length),
            }
        )

    def observation(self, observation: dict[str, Any]) -> dict[str, np.ndarray]:
        codes = np.zeros(self._length, dtype=np.int64)
        text = observation["instruction"]
        codes[: len(text)] = [self._codes[character] for character in text]
        return {**observation["pixels"], "agent_pos": observation["agent_pos"], "instruction": codes}
