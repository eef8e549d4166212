"""Runs a policy in closed loop: frame history, receding horizon, temporal ensembling. The network knows none of it.

R rows (episodes side by side), T frames, V cameras, S chunk steps, A actions.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch

from configs.evaluation import RunnerConfig
from vla_policy.checkpoint import Checkpoint
from vla_policy.contract import ActionChunk, Observation


class PolicyRunner:
    """Acts for R episodes at once. The batch always has R rows, so that a row's outcome depends on no other's end."""

    def __init__(self, checkpoint: Checkpoint, rows: int, config: RunnerConfig, device: str = "cpu") -> None:
        policy = checkpoint.policy
        if config.execute > policy.config.head.chunk:
            raise ValueError(f"execute {config.execute} exceeds the policy's chunk of {policy.config.head.chunk} steps")
        self.config, self._device = config, torch.device(device)
        self.policy = policy.to(self._device).eval()
        self._tokenizer = checkpoint.tokenizer
        self._cameras = policy.config.cameras
        self._stride, self._frames = policy.config.frame_stride, policy.config.frames
        span = (self._frames - 1) * self._stride + 1
        self._pixels: list[deque[np.ndarray]] = [deque(maxlen=span) for _ in range(rows)]
        self._agent_pos: list[deque[np.ndarray]] = [deque(maxlen=span) for _ in range(rows)]
        words = policy.config.language.max_words
        self._tokens = np.zeros((rows, words), dtype=np.int64)
        self._mask = np.zeros((rows, words), dtype=bool)
        # Idle rows still pass through the network: give them one word to attend to.
        self._mask[:, 0] = True
        shapes = policy.shapes
        self._empty = np.zeros((shapes.cameras, shapes.size, shapes.size, 3), dtype=np.uint8)
        self._rest = np.zeros(shapes.proprioception, dtype=np.float32)
        self._plans: deque[np.ndarray] = deque(maxlen=policy.config.head.chunk)
        self._step = 0
        self._frozen = False
        self.read: list[str | None] = []
        self.chunk: ActionChunk | None = None
        self.fresh = False  # whether `chunk` was predicted from the observation last given
        self.decisions = 0

    def reset(self, instructions: list[str | None], *, frozen: bool = False) -> None:
        """Start R episodes; None marks an idle row. `frozen` shows the newest frame in place of the whole history."""
        self._frozen = frozen
        self.read = list(instructions)
        self.chunk = None
        for row, text in enumerate(instructions):
            self._pixels[row].clear()
            self._agent_pos[row].clear()
            if text is not None:
                ids, mask = self._tokenizer.encode([text])
                self._tokens[row], self._mask[row] = ids[0], mask[0]
        self._plans.clear()
        self._step = 0

    def act(self, observations: list[dict[str, Any] | None]) -> np.ndarray:
        """Actions `(R, A)` in [-1, 1] for this control step; None observations are idle rows."""
        for row, seen in enumerate(observations):
            if seen is not None:
                self._pixels[row].append(np.stack([seen["pixels"][name] for name in self._cameras]))
                self._agent_pos[row].append(seen["agent_pos"])
        self.fresh = self._step % self.config.execute == 0
        if self.fresh:
            self._decide()
        self._step += 1
        if self.config.ensemble is None:
            return self._plans[-1][:, (self._step - 1) % self.config.execute]
        # Plan made k steps ago predicts this step in its row k; the newest plan has age zero.
        ages = range(len(self._plans))
        weights = np.exp(-self.config.ensemble * np.array(list(ages)))
        votes = np.stack([self._plans[-1 - age][:, age] for age in ages])
        return np.tensordot(weights / weights.sum(), votes, axes=1)

    def new_tube(self) -> Tube:
        """An empty tube for what this policy is going to see."""
        return Tube(span=(self._frames - 1) * self._stride, stride=self._stride)

    def _decide(self) -> None:
        back = [(self._frames - 1 - i) * self._stride for i in range(self._frames)]
        seen = [0] * self._frames if self._frozen else back
        frames = np.stack([_history(h, seen, self._empty) for h in self._pixels])
        agent_pos = np.stack([_history(h, back, self._rest) for h in self._agent_pos])
        observation = Observation(
            frames=torch.from_numpy(frames).movedim(-1, 3),
            agent_pos=torch.from_numpy(agent_pos),
            tokens=torch.from_numpy(self._tokens),
            token_mask=torch.from_numpy(self._mask),
        )
        self.chunk = self.policy.act(observation.to(self._device))
        self._plans.append(self.chunk.action.cpu().numpy())
        self.decisions += 1


def _history(kept: deque[np.ndarray], back: list[int], empty: np.ndarray) -> np.ndarray:
    """The entries that many steps back, oldest first; before the start the first one is repeated."""
    if not kept:
        return np.stack([empty] * len(back))
    return np.stack([kept[max(len(kept) - 1 - steps, 0)] for steps in back])
