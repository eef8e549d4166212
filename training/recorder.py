"""Records what an actor does as an episode of a dataset, with the expert's labels.

K steps, V cameras, O things, S steps of a plan, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from envs.actors import reads_target
from envs.rollout import World
from envs.task import offers
from training.data.episodes import Episode


class EpisodeRecorder:
    """Keeps one episode at a time in `episode`: None until it is over, and where the simulation became unstable.

    Args:
        cameras: to record.
        expert: whose actions are the labels. One that plans labels every thing of the scene with its next S actions.
            Where the environment has words for all of them, `aims` and foresight, another one does so for what is meant
            and, at each step, for one other thing. Else it labels each step with one action or, where the environment
            can foresee, with S.
        plan_steps: S.
        label: the clean action of a step, (A,) in [-1, 1], of an expert that does not plan.
        rng: the generator that draws the words for the other things of the scene, of an expert that plans.
        foresees: whether the labels of what is meant are to be foreseen at this step, where the environment can. Those
            of successive steps tell as much where what was done was what they say, but for noise.
    """

    def __init__(
        self,
        cameras: tuple[str, ...],
        expert: Any,
        plan_steps: int,
        *,
        label: Callable[[World], np.ndarray],
        rng: Callable[[World], np.random.Generator],
        foresees: Callable[[World], bool] = lambda world: False,
    ) -> None:
        self._cameras, self._expert, self._plan_steps = cameras, expert, plan_steps
        self._label, self._rng = label, rng
        self._plans, self._foresees = hasattr(expert, "plan"), foresees
        self.episode: Episode | None = None

    def begin(self, world: World) -> None:
        self.episode = None
        self._rows: dict[str, list[np.ndarray]] = {}
        self._infos: list[dict[str, Any]] = []
        env, known = world.env, world.info.get("privileged", {})
        self._foresee = None if self._plans else offers(env, "foresee")
        words = offers(env, "instructions")
        can = reads_target(self._expert) and "aims" in known
        self._all = can and self._foresee is not None and words is not None
        if self._all:
            assert words is not None
            # Of its own: who acts draws from another one, and does the same whether somebody looks on or not.
            self._chance = np.random.default_rng((world.seed, 8))
            self._texts: tuple[str | None, ...] = tuple(words(self._chance))

    def step(self, world: World, action: np.ndarray) -> None:
        seen = world.observation
        row = {
            "pixels": np.stack([seen["pixels"][name] for name in self._cameras]),
            "agent_pos": np.array(seen["agent_pos"], np.float32),  # a copy: it may be the environment's own
            "executed": world.scale.to_unit(action),
        }
        known = world.info.get("privileged", {})
        if "boxes" in known and self._all:
            body, goal = known["aims"].T
            row |= self._labels_of(known, body, "")
            if (goal >= 0).any():
                row |= self._labels_of(known, goal, "goal_")
        elif "boxes" in known:
            things = slice(None) if self._plans else slice(known["target"], known["target"] + 1)
            row["boxes"] = np.stack([known["boxes"][name][things] for name in self._cameras])
            row["visible"] = np.stack([known["visible"][name][things] for name in self._cameras])
            if "goal" in known and not self._plans:
                goal = slice(known["goal"], known["goal"] + 1)
                row["goal_boxes"] = np.stack([known["boxes"][name][goal] for name in self._cameras])
                row["goal_visible"] = np.stack([known["visible"][name][goal] for name in self._cameras])
        if self._plans:
            self._infos.append(world.info)
        elif self._all:
            row["action"], row["planned"] = self._all_labels(world)
        elif self._foresee is not None and self._foresees(world):
            row["action"] = self._ahead(world)[None]
        else:
            row["action"] = self._label(world)[None, None]
        for name, value in row.items():
            self._rows.setdefault(name, []).append(value)

    def _labels_of(self, known: dict[str, Any], things: np.ndarray, prefix: str) -> dict[str, np.ndarray]:
        """Boxes and visibility of these things (O,) in all cameras, zeros where there is none (-1)."""
        labels = {}
        for name in ("boxes", "visible"):
            labels[prefix + name] = np.stack([known[name][camera][things] for camera in self._cameras])
            labels[prefix + name][:, things < 0] = 0
        return labels

    def _ahead(self, world: World, *thing: int) -> np.ndarray:
        """The expert's next S actions, (S, A) in [-1, 1]."""
        assert self._foresee is not None
        ahead = self._foresee(self._expert, self._plan_steps, *thing)
        return np.stack([world.scale.to_unit(action) for action in ahead])

    def _all_labels(self, world: World) -> tuple[np.ndarray, np.ndarray]:
        """A step's labels by thing, (O, S, A), and how many of the S are known, (O,). Of what is meant, those that are
        not foreseen are filled in at the episode's end.
        """
        known = world.info["privileged"]
        things, target = len(self._texts), known["target"]
        labels = np.zeros((things, self._plan_steps, len(world.action_names)), np.float32)
        planned = np.zeros(things, np.int64)
        others = [i for i, text in enumerate(self._texts) if text is not None and i != target]
        if others:
            other = others[self._chance.integers(len(others))]
            labels[other], planned[other] = self._ahead(world, other), self._plan_steps
        if self._foresees(world):
            labels[target], planned[target] = self._ahead(world), self._plan_steps
        else:
            labels[target, 0], planned[target] = self._label(world), 1
        return labels, planned

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
        elif self._all:
            texts, target = self._texts, known["target"]
            events = np.where((known["aims"][:, :1] >= 0), np.minimum(known["events"], length), (0, length))
            _put_together(rows["action"][:, target], rows["planned"][:, target])
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


def _put_together(labels: np.ndarray, known: np.ndarray) -> None:
    """Fill in what a step's label (K, S, A) lacks from those of the steps after it, as far as each is known (K,)."""
    steps = labels.shape[1]
    short = known < steps
    first = labels[:, 0].copy()
    for i in np.flatnonzero(short):
        ahead = first[i : i + steps]
        labels[i, : len(ahead)], known[i] = ahead, len(ahead)
