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
