"""One client's episode: what it showed, what it said, and the window that the next decision is made from.

T frames, V cameras, H picture height and width, P proprioception, L text tokens.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.names import near
from vla_policy.checkpoint import Checkpoint
from vla_policy.server.wire import shown

LONGEST_PROMPT = 1000  # characters
LAST_STEP = 2**53  # as far as every language counts exactly
KEYS = ("pixels", "agent_pos", "prompt", "reset", "step", "act")


@dataclass(frozen=True, kw_only=True)
class Window:
    """What one decision is made from: frames `(T, V, H, H, 3)` uint8 and agent_pos `(T, P)` float32, oldest first,
    tokens `(L,)` int64 and mask `(L,)` bool; step is that of the newest observation.
    """

    frames: np.ndarray
    agent_pos: np.ndarray
    tokens: np.ndarray
    mask: np.ndarray
    step: int


@dataclass(frozen=True, kw_only=True)
class Taken:
    """An observation that was taken in: its control step, and whether an action is asked for."""

    step: int
    act: bool


class Session:
    """The newest episode of one client. A message that is refused changes nothing.

    `notice` says what of the instruction the policy cannot read, "" if nothing.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        policy = checkpoint.policy
        self._cameras, self._shapes = policy.config.cameras, policy.shapes
        self._ages = policy.config.ages
        self._agent_pos_names, self._tokenizer = checkpoint.purpose.agent_pos_names, checkpoint.tokenizer
        # Step, pictures (V, H, H, 3), proprioception (P,).
        self._seen: deque[tuple[int, np.ndarray, np.ndarray]] = deque()
        self._prompt = self.notice = ""
        self._tokens, self._mask = np.zeros(0, np.int64), np.zeros(0, bool)

    def take(self, message: Any) -> Taken:
        """Take in an observation.

        Raises:
            ValueError: it is not one; the text says what was got and what was expected.
        """
        if not isinstance(message, dict):
            raise ValueError(f"got a message that is {type(message).__name__}, expected a map with {', '.join(KEYS)}")
        for key in message:
            if key not in KEYS:
                name = str(key)[:60]
                raise ValueError(
                    f"key {name!r} is unknown{near(name, KEYS, 0.6)}; an observation has {', '.join(KEYS)}"
                )
        reset, act = (_flag(message, key, default) for key, default in (("reset", False), ("act", True)))
        begins = reset or not self._seen
        step = self._step_of(message, begins)
        pixels, agent_pos = self._pixels_of(message), self._agent_pos_of(message)
        self._read(message, begins)
        if begins:
            self._seen.clear()
        self._seen.append((step, pixels, agent_pos))
        oldest = step - self._ages[0]
        while len(self._seen) > 1 and self._seen[1][0] <= oldest:
            self._seen.popleft()
        return Taken(step=step, act=act)

    def window(self) -> Window:
        """The frames that the policy looks at: for each the newest observation that is not younger, and before the
        episode's start the first one.
        """
        newest = self._seen[-1][0]
        wanted = [newest - age for age in self._ages]
        chosen, place = [], 0
        for step in wanted:
            while place + 1 < len(self._seen) and self._seen[place + 1][0] <= step:
                place += 1
            chosen.append(self._seen[place])
        return Window(
            frames=np.stack([pixels for _, pixels, _ in chosen]),
            agent_pos=np.stack([agent_pos for _, _, agent_pos in chosen]),
            tokens=self._tokens,
            mask=self._mask,
            step=newest,
        )

    def _step_of(self, message: dict[str, Any], begins: bool) -> int:
        last = -1 if begins else self._seen[-1][0]
        step = message.get("step", last + 1)
        if isinstance(step, np.integer):
            step = int(step)
        if type(step) is not int or not last < step <= LAST_STEP:
            expected = f"a whole number above {last}, the last one's" if not begins else "a whole number from 0 on"
            raise ValueError(f"step: got {shown(step)}, expected {expected}; `reset` begins a new episode")
        return step

    def _pixels_of(self, message: dict[str, Any]) -> np.ndarray:
        given, side = message.get("pixels"), self._shapes.size
        if not isinstance(given, dict) or set(given) != set(self._cameras):
            got = f"cameras {shown(sorted(map(str, given)))}" if isinstance(given, dict) else _kind(given)
            raise ValueError(f"pixels: got {got}, expected a map with a picture of {', '.join(self._cameras)}")
        for name, picture in given.items():
            if not isinstance(picture, np.ndarray) or picture.shape != (side, side, 3) or picture.dtype != np.uint8:
                raise ValueError(f"pixels[{name!r}]: got {_kind(picture)}, expected ({side}, {side}, 3) uint8")
        return np.stack([given[name] for name in self._cameras])

    def _agent_pos_of(self, message: dict[str, Any]) -> np.ndarray:
        given, names = message.get("agent_pos"), self._agent_pos_names
        if not isinstance(given, np.ndarray) or given.shape != (len(names),) or given.dtype.kind != "f":
            raise ValueError(f"agent_pos: got {_kind(given)}, expected ({len(names)},) float32: {', '.join(names)}")
        with np.errstate(over="ignore"):  # of float64, which then is not finite
            agent_pos = given.astype(np.float32)
        if not np.isfinite(agent_pos).all():
            name = names[int(np.flatnonzero(~np.isfinite(agent_pos))[0])]
            raise ValueError(f"agent_pos: {name} is not finite")
        return agent_pos

    def _read(self, message: dict[str, Any], begins: bool) -> None:
        """Take in the instruction, which may change in mid-episode."""
        prompt = message.get("prompt")
        if prompt is None and not begins:
            return
        if not isinstance(prompt, str) or not prompt.strip() or len(prompt) > LONGEST_PROMPT:
            got = f"{len(prompt)} characters" if isinstance(prompt, str) else _kind(prompt)
            when = " with an episode's first observation" if begins else ""
            raise ValueError(f"prompt: got {got}, expected an instruction of {LONGEST_PROMPT} at most{when}")
        if prompt != self._prompt:
            ids, mask = self._tokenizer.encode([prompt])
            notice = self._tokenizer.reading(prompt).notice
            self._prompt, self._tokens, self._mask, self.notice = prompt, ids[0], mask[0], notice


def _flag(message: dict[str, Any], key: str, default: bool) -> bool:
    value = message.get(key, default)
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{key}: got {shown(value)}, expected true or false")
    return bool(value)


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype}"
    return "nothing" if value is None else type(value).__name__
