"""The space of instructions, with a repair of how Gymnasium hands texts over between processes.

`AsyncVectorEnv` reads its shared memory once, when it is made. What it reads then must follow the memory ever after:
arrays do, as views, but texts are decoded once and stay what they were before the first reset (Gymnasium 1.1 to 1.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import shared_memory

MAX_INSTRUCTION = 120  # characters
INSTRUCTION_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ,.-'!?"


class InstructionSpace(spaces.Text):
    """A text space that also works in `AsyncVectorEnv` with shared memory."""


class _SharedTexts(Sequence[str]):
    """The texts that the shared memory holds at the time of looking; a copy is a tuple of what it held then."""

    def __init__(self, space: InstructionSpace, memory: Any, n: int) -> None:
        self._space, self._memory, self._n = space, memory, n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: Any) -> Any:
        return self._texts()[index]

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[str, ...]:
        return self._texts()

    def _texts(self) -> tuple[str, ...]:
        codes = np.frombuffer(self._memory.get_obj(), dtype=np.int32).reshape(self._n, self._space.max_length)
        characters = self._space.character_list
        return tuple("".join(characters[code] for code in row if code < len(characters)) for row in codes)


@shared_memory.read_from_shared_memory.register(InstructionSpace)
def _read_instructions(space: InstructionSpace, memory: Any, n: int = 1) -> _SharedTexts:
    return _SharedTexts(space, memory, n)
