"""Runs a policy in closed loop: frame history, receding horizon, temporal ensembling. The network knows none of it.

R rows (episodes side by side), T frames, V cameras, S chunk steps, A actions, P proprioception.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from configs.evaluation import RunnerConfig
from vla_policy.checkpoint import Checkpoint
from vla_policy.contract import ActionChunk, Observation


class PolicyRunner:
    """Acts for R episodes at once. The batch always has R rows, so that a row's outcome depends on no other's end.

    Args:
        checkpoint: the policy, which is moved to the device.
        rows: R.
        config: how chunks are executed; the defaults if left out.
        device: where the policy computes.

    `chunk` is what the policy last decided; `fresh` says whether it did so from the observations given last.
    """

    def __init__(
        self, checkpoint: Checkpoint, rows: int = 1, config: RunnerConfig | None = None, device: str = "cpu"
    ) -> None:
        policy, config = checkpoint.policy, config or RunnerConfig()
        if config.execute > policy.config.head.chunk:
            raise ValueError(f"execute {config.execute} exceeds the policy's chunk of {policy.config.head.chunk} steps")
        self.config, self._device = config, torch.device(device)
        self.policy = policy.to(self._device)
        self.tokenizer, self.action_names = checkpoint.tokenizer, checkpoint.purpose.action_names
        self._cameras, self._boxes = policy.config.cameras, checkpoint.purpose.boxes
        self._ages = policy.config.ages
        span = self._ages[0] + 1
        self._pixels: list[deque[np.ndarray]] = [deque(maxlen=span) for _ in range(rows)]
        self._agent_pos: list[deque[np.ndarray]] = [deque(maxlen=span) for _ in range(rows)]
        words = policy.config.language.max_words
        self._tokens = np.zeros((rows, words), dtype=np.int64)
        self._mask = np.zeros((rows, words), dtype=bool)
        self._heard = [0] * rows  # the step at which each row was given its words
        # Idle rows still pass through the network: give them one word to attend to.
        self._mask[:, 0] = True
        shapes = policy.shapes
        self._empty = np.zeros((shapes.cameras, shapes.size, shapes.size, 3), dtype=np.uint8)
        self._rest = np.zeros(shapes.proprioception, dtype=np.float32)
        self._chunks: deque[np.ndarray] = deque(maxlen=policy.config.head.chunk)
        self._step = 0
        self._frozen = self._begun = False
        self.chunk: ActionChunk | None = None
        self.fresh = False
        self.decisions = 0

    def reset(self, instructions: Sequence[str | None], *, frozen: bool = False) -> None:
        """Start R episodes.

        Args:
            instructions: what the policy reads in each row; None marks an idle row.
            frozen: show the newest frame in place of the whole history.

        Raises:
            ValueError: an instruction has no words.
        """
        if isinstance(instructions, str) or len(instructions) != len(self._pixels):
            raise ValueError(f"got {instructions!r}, expected {len(self._pixels)} instructions in a list, one per row")
        self._frozen, self._begun = frozen, True
        self.chunk = None
        self._chunks.clear()
        self._step = 0
        for row, text in enumerate(instructions):
            self._pixels[row].clear()
            self._agent_pos[row].clear()
            self._heard[row] = 0
            if text is not None:
                self.instruct(row, text)

    def instruct(self, row: int, instruction: str) -> None:
        """Let a row read other words from its next decision on. What it has seen stays; what it predicted while it read
        the words before is not averaged with what it predicts now.

        Raises:
            ValueError: the instruction has no words.
        """
        ids, mask = self.tokenizer.encode([instruction])
        self._tokens, self._mask = self._tokens.copy(), self._mask.copy()  # observations that were made keep theirs
        self._tokens[row], self._mask[row] = ids[0], mask[0]
        self._heard[row] = self._step

    def act(self, observations: Sequence[dict[str, Any] | None]) -> np.ndarray:
        """Actions `(R, A)` in [-1, 1] for this control step, in the order of `action_names`.

        Args:
            observations: of each row, with `pixels` (camera → (H, W, 3) uint8) and `agent_pos` (P,) float32; None for
                idle rows.
        """
        if not self._begun or len(observations) != len(self._pixels):
            what = f"{len(observations)} observations" if self._begun else "act() before reset()"
            raise ValueError(f"got {what}, expected reset(instructions) and then {len(self._pixels)} observations")
        needed = self._needed()
        for row, seen in enumerate(observations):
            if seen is not None:
                pixels = np.stack([seen["pixels"][name] for name in self._cameras]) if needed else self._empty
                self._pixels[row].append(pixels)
                self._agent_pos[row].append(np.array(seen["agent_pos"]))  # a copy: it may be the environment's own
        self.fresh = self._step % self.config.execute == 0
        if self.fresh:
            self._decide()
        self._step += 1
        if self.config.ensemble is None:
            return self._chunks[-1][:, (self._step - 1) % self.config.execute]
        actions = ensemble(self._chunks, self.config.ensemble)
        for row, heard in enumerate(self._heard):
            if (since := self._step - heard) < len(self._chunks):
                actions[row] = ensemble(list(self._chunks)[-since:], self.config.ensemble)[row]
        return actions

    def _needed(self) -> bool:
        """Whether the pictures of this step are part of any decision: where they are drawn on demand, no others are."""
        ahead = [0] if self._frozen else self._ages
        return self._step == 0 or any((self._step + steps) % self.config.execute == 0 for steps in ahead)

    def _decide(self) -> None:
        back = list(self._ages)
        if self.policy.config.grounds_videos:  # which may be short: nothing need be repeated
            back = [steps for steps in back if steps <= self._step]
        seen = [0] * len(back) if self._frozen else back
        frames = np.stack([history_of(h, seen, self._empty) for h in self._pixels])
        agent_pos = np.stack([history_of(h, back, self._rest) for h in self._agent_pos])
        observation = Observation(
            frames=torch.from_numpy(frames).movedim(-1, 3),
            agent_pos=torch.from_numpy(agent_pos),
            tokens=torch.from_numpy(self._tokens),
            token_mask=torch.from_numpy(self._mask),
        )
        training = self.policy.training  # of a policy that is being trained and acts in between
        self.policy.eval()
        try:
            self.chunk = self.policy.act(observation.to(self._device))
        finally:
            self.policy.train(training)
        if not self._boxes:  # what never was learned must not be shown, nor judged
            self.chunk = replace(self.chunk, aux=replace(self.chunk.aux, boxes=None, tubes=None, location=None))
        self._chunks.append(self.chunk.action.float().cpu().numpy())
        self.decisions += 1


def ensemble(chunks: Sequence[np.ndarray], m: float) -> np.ndarray:
    """Temporal ensembling: the mean of all predictions for this step, `(R, A)`, with weights exp(-m · i), i = 0 being
    the oldest prediction (Zhao et al. 2023, section 4).

    Args:
        chunks: `(R, S, A)` each, of successive control steps, the newest last; the one made k steps ago predicts this
            step in its row k.
        m: above 0 the oldest counts most, below 0 the newest does, at 0 all count alike.
    """
    predictions = np.stack([chunks[-1 - age][:, age] for age in reversed(range(len(chunks)))])  # oldest first
    exponents = -m * np.arange(len(predictions))
    weights = np.exp(exponents - exponents.max())  # whatever m is, the largest is 1
    mean: np.ndarray = np.tensordot(weights / weights.sum(), predictions, axes=1)
    return mean


def history_of(kept: deque[np.ndarray], back: list[int], empty: np.ndarray | None = None) -> np.ndarray:
    """The entries that many steps back, oldest first; before the start the first one is repeated. Where there are none,
    `empty` stands for each.
    """
    if empty is not None and not kept:
        return np.stack([empty] * len(back))
    return np.stack([kept[max(len(kept) - 1 - steps, 0)] for steps in back])


class Scale(Protocol):
    """Between a task's actions and [-1, 1]."""

    def to_task(self, unit: np.ndarray) -> np.ndarray:
        """From [-1, 1], (A,)."""


class Robot(Protocol):
    """What a policy needs of a world in which it acts; `envs.rollout.World` has it."""

    observation: dict[str, Any]
    instruction: str
    action_names: tuple[str, ...]

    @property
    def scale(self) -> Scale: ...


class PolicyActor:
    """A policy as an actor of `envs.rollout`. A world's instruction may change in mid-episode.

    Args:
        runner: with as many rows as there are worlds.
        frozen: show the newest frame in place of the whole history.
    """

    def __init__(self, runner: PolicyRunner, *, frozen: bool = False) -> None:
        self.runner, self._frozen = runner, frozen

    def reset(self, worlds: Sequence[Robot | None]) -> None:
        self._read = [None if world is None else world.instruction for world in worlds]
        self.runner.reset(self._read, frozen=self._frozen)
        names = self.runner.action_names
        self._order = [[] if w is None else [names.index(name) for name in w.action_names] for w in worlds]

    def act(self, worlds: Sequence[Robot | None]) -> list[np.ndarray | None]:
        for row, world in enumerate(worlds):
            if world is not None and world.instruction != self._read[row]:
                self.runner.instruct(row, world.instruction)
                self._read[row] = world.instruction
        actions = self.runner.act([None if world is None else world.observation for world in worlds])
        return [
            None if world is None else world.scale.to_task(actions[row, self._order[row]])
            for row, world in enumerate(worlds)
        ]
