"""Records what an actor does as an episode of a dataset, with the expert's labels.

K steps, V cameras, O things, S steps of a plan, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from envs.rollout import World
from envs.task import offers
from training.data.episodes import Episode


class EpisodeRecorder:
    """Keeps one episode at a time in `episode`: None until it is over, and where the simulation became unstable.

    Args:
        cameras: to record.
        expert: whose actions are the labels. One that plans labels every thing of the scene with its next S actions;
            any other one labels each step with one action or, where the environment can `foresee`, with S.
        plan_steps: S of an expert that plans.
        label: the clean action of a step, (A,) in [-1, 1], of an expert that does not plan.
        rng: the generator that draws the words for the other things of the scene.
        foresees: ask environments that can what an expert that does not plan would do in the next S steps.
    """

    def __init__(
        self,
        cameras: tuple[str, ...],
        expert: Any,
        plan_steps: int,
        *,
        label: Callable[[World], np.ndarray],
        rng: Callable[[World], np.random.Generator],
        foresees: bool = False,
    ) -> None:
        self._cameras, self._expert, self._plan_steps = cameras, expert, plan_steps
        self._label, self._rng = label, rng
        self._plans, self._foresees = hasattr(expert, "plan"), foresees
        self.episode: Episode | None = None

    def begin(self, world: World) -> None:
        self.episode = None
        self._rows: dict[str, list[np.ndarray]] = {}
        self._infos: list[dict[str, Any]] = []

    def step(self, world: World, action: np.ndarray) -> None:
        seen = world.observation
        row = {
            "pixels": np.stack([seen["pixels"][name] for name in self._cameras]),
            "agent_pos": np.array(seen["agent_pos"], np.float32),  # a copy: it may be the environment's own
            "executed": world.scale.to_unit(action),
        }
        known = world.info.get("privileged", {})
        if "boxes" in known:
            things = slice(None) if self._plans else slice(known["target"], known["target"] + 1)
            row["boxes"] = np.stack([known["boxes"][name][things] for name in self._cameras])
            row["visible"] = np.stack([known["visible"][name][things] for name in self._cameras])
            if "goal" in known and not self._plans:
                goal = slice(known["goal"], known["goal"] + 1)
                row["goal_boxes"] = np.stack([known["boxes"][name][goal] for name in self._cameras])
                row["goal_visible"] = np.stack([known["visible"][name][goal] for name in self._cameras])
        if self._plans:
            self._infos.append(world.info)
        elif self._foresees:
            ahead = offers(world.env, "foresee")(self._expert, self._plan_steps)
            row["action"] = np.stack([world.scale.to_unit(action) for action in ahead])[None]
        else:
            row["action"] = self._label(world)[None, None]
        for name, value in row.items():
            self._rows.setdefault(name, []).append(value)

    def end(self, world: World) -> None:
        if not world.info.get("stable", True):
            return
        rows = {name: np.stack(values) for name, values in self._rows.items()}
        length, known = world.step, world.info.get("privileged", {})
        texts: tuple[str | None, ...] = (world.task_instruction,)
        target, events = 0, np.array([(0, length)])
        if self._plans:
            rows["action"] = self._expert.plan(world.env, self._infos, self._plan_steps)
            texts = offers(world.env, "instructions")(self._rng(world))
            target = known["target"]
            events = np.where(known["present"][:, None], np.minimum(known["events"], length), (0, length))
        elif "events" in known:
            events = np.minimum(known["events"][[known["target"]]], length)
        self.episode = Episode(
            seed=world.seed,
            instructions=texts,
            target=target,
            success=bool(world.info["is_success"]),
            events=events,
            **rows,
        )
