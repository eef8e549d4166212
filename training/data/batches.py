"""Batches by direct gather from memory-mapped datasets: no Python loop over samples, bytes stay bytes.

B batch, T frames, V cameras, H W C image, P proprioception, S chunk steps, A actions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from configs.interface import check_same_robot
from training.data.episodes import PLANNED, Dataset
from vla_policy.contract import Batch, Observation, Shapes
from vla_policy.tokenizer import TextTokenizer


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How samples are cut out of episodes; see `configs.policy.PolicyConfig` for the meaning of the fields.

    whole: a sample is not what a policy sees at some step, but as much of an episode as its frames span, from its first
    steps on where all of it fits. Samples are padded at their ends to the longest of the batch, as `frame_mask` says.
    """

    ages: tuple[int, ...]
    chunk: int
    cameras: tuple[str, ...]
    tubes: tuple[tuple[str, str], ...] = ()
    whole: bool = False


OVER_TIME = ("frames", "agent_pos", "boxes", "visible", "event", "more_boxes", "more_visible")  # (B, T, …) each
FOLLOWED = 0.05  # what was done may be so far from a label of [-1, 1] and still count as it


class _Part:
    """One dataset, with everything that is looked up per sample as arrays over its steps."""

    def __init__(
        self,
        data: Dataset,
        config: SampleConfig,
        action_names: list[str],
        tokenizer: TextTokenizer,
        holdout: float,
    ) -> None:
        self.task = str(data.header["task"])
        names = data.interface.cameras
        missing = [name for name in config.cameras if name not in names]
        if missing:
            raise ValueError(f"{data.path}: camera {missing[0]!r} was not recorded, only {', '.join(names)}")
        planned = data.arrays["action"].shape[2]
        self.ahead = np.arange(config.chunk)
        # Labels of one step are put together to chunks, but only of what was done: towards anything else the hand would
        # have been elsewhere a step later.
        self.planned = planned > 1 or data.arrays["action"].shape[1] > 1
        if self.planned and config.chunk > planned:
            raise ValueError(
                f"{data.path}: labels look {planned} steps ahead; policy.head.chunk {config.chunk} exceeds it"
            )
        offsets = data.arrays["offsets"]
        lengths = np.diff(offsets)
        self.pixels = data.arrays["pixels"]
        self.cameras = None if config.cameras == names else [names.index(name) for name in config.cameras]
        self.first_camera = names.index(config.cameras[0])
        self.agent_pos = np.array(data.arrays["agent_pos"])
        label = data.arrays["action"][:, :, : config.chunk]
        self.known = np.minimum(data.arrays[PLANNED], config.chunk) if PLANNED in data.arrays else None
        self.labels = np.zeros((*label.shape[:3], len(action_names)), dtype=np.float32)
        self.labels[..., [action_names.index(name) for name in data.interface.action_names]] = label
        things = label.shape[1]
        self.boxes = np.zeros((data.steps, things, 4), np.float32)
        self.visible = np.zeros((data.steps, things), np.bool_)
        if data.labelled:
            self.boxes[:] = data.arrays["boxes"][:, self.first_camera]
            self.visible[:] = data.arrays["visible"][:, self.first_camera]
        more = config.tubes[1:]
        self.more_boxes = np.zeros((data.steps, things, len(more), 4), np.float32)
        self.more_visible = np.zeros((data.steps, things, len(more)), np.bool_)
        for tube, (camera, thing) in enumerate(more):
            boxes, visible = ("boxes", "visible") if thing == "target" else ("goal_boxes", "goal_visible")
            if boxes in data.arrays:
                self.more_boxes[:, :, tube] = data.arrays[boxes][:, names.index(camera)]
                self.more_visible[:, :, tube] = data.arrays[visible][:, names.index(camera)]
        self.episode = np.repeat(np.arange(data.episodes), lengths)
        self.start, self.end = offsets[:-1][self.episode], offsets[1:][self.episode]
        # Where each step's chunk ends. Noise on what was done averages out, what another actor does there does not.
        self.until = self.end
        if data.on_policy and not self.planned:
            self.until = np.minimum(self.end, _followed_until(data.arrays["executed"], data.arrays["action"][:, 0, 0]))
        self.events, self.targets = np.array(data.arrays["events"]), np.array(data.arrays["targets"])
        self.named = np.array([[text is not None for text in texts] for texts in data.instructions])
        ids, mask = tokenizer.encode(data.texts)
        self.longest = int(mask.sum(1).max())
        self.tokens = np.zeros((*self.named.shape, ids.shape[1]), dtype=ids.dtype)
        self.token_mask = np.zeros(self.tokens.shape, dtype=np.bool_)
        self.tokens[self.named], self.token_mask[self.named] = ids, mask
        # The last episodes are held out; at least one stays for training.
        kept = data.episodes - min(round(data.episodes * holdout), data.episodes - 1)
        self.trained = int(offsets[kept])

    def __len__(self) -> int:
        return len(self.labels)

    def has_label(self, steps: np.ndarray, things: np.ndarray) -> np.ndarray:
        """Which actions of the steps' chunks have a label, (n, S) bool."""
        if self.known is not None:
            planned: np.ndarray = self.ahead < self.known[steps, things][:, None]
            return planned
        within: np.ndarray = steps[:, None] + self.ahead < self.until[steps, None]
        return within

    def action(self, steps: np.ndarray, things: np.ndarray) -> np.ndarray:
        """The labels of the steps' chunks, (n, S, A): planned, or put together from those of successive steps."""
        if self.planned:
            return self.labels[steps, things]
        rows = np.minimum(steps[:, None] + self.ahead, self.end[steps, None] - 1)
        return self.labels[rows, things[:, None], 0]


def _followed_until(executed: np.ndarray, label: np.ndarray) -> np.ndarray:
    """One past the last step whose label belongs to each step's chunk, (N,): a label counts if all labels before it,
    from the chunk's first step on, were followed.

    Args:
        executed, label: (N, A) in [-1, 1].
    """
    strayed = np.flatnonzero(np.abs(executed - label).max(axis=1) > FOLLOWED)
    steps = np.arange(len(executed))
    until: np.ndarray = np.append(strayed, len(executed))[np.searchsorted(strayed, steps)] + 1
    return until


class Sampler:
    """Random batches from one or several datasets. Tasks count alike, however many steps each holds, unless `weights`
    says otherwise; datasets of one task, such as the rounds of DAgger, share its weight in proportion to their steps.

    Actions of several tasks share one space: the union of their names, with zeros where a task has no such action.

    Args:
        holdout: share of each dataset's episodes that `batch` leaves to `held_out=True`.
        relabel: share of the samples whose instruction is drawn from all those of the scene, with the labels that
            belong to it; the others read what the demonstration followed.
        weights: share of the samples that are of each task, in any unit; tasks count alike if left out.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        config: SampleConfig,
        tokenizer: TextTokenizer,
        action_names: list[str],
        *,
        holdout: float = 0.0,
        relabel: float = 0.0,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        if not datasets:
            raise ValueError("no dataset given; collect one with `vla collect`")
        self.config, self.relabel = config, relabel
        for i, data in enumerate(datasets):
            height, width = data.arrays["pixels"].shape[2:4]
            size = datasets[0].arrays["pixels"].shape[2]
            if height != width or height != size:
                got = f"{data.path}: pictures of {height} x {width} pixels"
                raise ValueError(f"{got}; all must be square and as large as those of {datasets[0].path}, {size}")
            for other in datasets[:i]:  # each: one that does not say its rate fits two that differ
                check_same_robot(other.interface, data.interface, (str(other.path), str(data.path)))
        self.parts = [_Part(d, config, action_names, tokenizer, holdout) for d in datasets]
        names = [part.task for part in self.parts]
        self._tasks = [[i for i, of in enumerate(names) if of == task] for task in dict.fromkeys(names)]
        self._weights = None if weights is None else np.array([weights[task] for task in dict.fromkeys(names)])
        self.size, self.proprioception = self.parts[0].pixels.shape[2], self.parts[0].agent_pos.shape[1]
        # Attention costs what the padding costs: keep as many words as the longest instruction has.
        longest = max(part.longest for part in self.parts)
        for part in self.parts:
            part.tokens, part.token_mask = part.tokens[..., :longest], part.token_mask[..., :longest]
        self._back = -np.array(config.ages)

    def shapes(self, actions: int, vocabulary: int) -> Shapes:
        return Shapes(
            frames=len(self.config.ages),
            cameras=len(self.config.cameras),
            size=self.size,
            proprioception=self.proprioception,
            actions=actions,
            vocabulary=vocabulary,
        )

    def statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of proprioception, each task counting alike: `(P,)`, `(P,)`."""
        felt = [np.concatenate([self.parts[i].agent_pos for i in task]) for task in self._tasks]
        means = np.mean([values.mean(0, dtype=np.float64) for values in felt], axis=0)
        squares = np.mean([(values.astype(np.float64) ** 2).mean(0) for values in felt], axis=0)
        std = np.sqrt(np.maximum(squares - means**2, 0))
        return torch.from_numpy(means.astype(np.float32)), torch.from_numpy(std.astype(np.float32))

    @property
    def held_out(self) -> bool:
        """Whether every task keeps some episodes out of training."""
        return all(any(self.parts[i].trained < len(self.parts[i]) for i in task) for task in self._tasks)

    def batch(
        self, rng: np.random.Generator, size: int, *, held_out: bool = False, share: slice = slice(None)
    ) -> Batch:
        """A random batch of `size` samples from the training or the held-out episodes, or a share of that batch."""
        if self._weights is None or held_out:
            counts = np.bincount(rng.integers(len(self._tasks), size=size), minlength=len(self._tasks))
        else:
            counts = rng.multinomial(size, self._weights / self._weights.sum())
        ranges = [(p.trained, len(p)) if held_out else (0, p.trained) for p in self.parts]
        steps = [np.zeros(0, np.int64)] * len(self.parts)
        for task, count in zip(self._tasks, counts, strict=True):
            bounds = np.cumsum([0, *(ranges[i][1] - ranges[i][0] for i in task)])
            places = rng.integers(bounds[-1], size=int(count))  # among the steps of all the task's datasets
            for i, first, last in zip(task, bounds[:-1], bounds[1:], strict=True):
                steps[i] = places[(places >= first) & (places < last)] - first + ranges[i][0]
        things = [self._draw_things(rng, p, s) for p, s in zip(self.parts, steps, strict=True)]
        mine = np.zeros(size, np.bool_)
        mine[share] = True
        ends = np.cumsum([len(s) for s in steps])
        kept = [mine[end - len(s) : end] for s, end in zip(steps, ends, strict=True)]
        return self.gather(
            [s[keep] for s, keep in zip(steps, kept, strict=True)],
            [t[keep] for t, keep in zip(things, kept, strict=True)],
        )

    def _draw_things(self, rng: np.random.Generator, part: _Part, steps: np.ndarray) -> np.ndarray:
        """The thing that each sample's instruction names: one for which there is a label."""
        episode = part.episode[steps]
        chances = rng.random((len(steps), part.named.shape[1]))
        can = part.named[episode] if part.known is None else part.known[steps] > 0
        any_named = np.where(can, chances, -1.0).argmax(axis=1)
        things: np.ndarray = np.where(rng.random(len(steps)) < self.relabel, any_named, part.targets[episode])
        return things

    def gather(self, steps: list[np.ndarray], things: list[np.ndarray] | None = None) -> Batch:
        """The batch of these steps, one array of step indices a dataset.

        Args:
            things: which thing each sample's instruction names, in the same form; the demonstrated one if left out.
        """
        things = things or [p.targets[p.episode[s]] for p, s in zip(self.parts, steps, strict=True)]
        pieces = [
            self._gather_part(*chosen) for chosen in zip(self.parts, steps, things, strict=True) if len(chosen[1])
        ]
        joined = {k: torch.from_numpy(np.concatenate([piece[k] for piece in pieces])) for k in pieces[0]}
        mask = joined.pop("frame_mask", None)
        if mask is not None:
            longest = int(mask.sum(1).max())
            mask = mask[:, :longest]
            joined |= {k: joined[k][:, :longest] for k in OVER_TIME if k in joined}
        observation = Observation(
            frames=joined.pop("frames").movedim(-1, 3),
            agent_pos=joined.pop("agent_pos"),
            tokens=joined.pop("tokens"),
            token_mask=joined.pop("token_mask"),
            frame_mask=mask,
        )
        return Batch(observation=observation, **joined)

    def _begin(self, part: _Part, steps: np.ndarray) -> np.ndarray:
        """Where the videos of these steps begin, (n,): early in an episode that fits as a whole, which gives its frames
        all phases; elsewhere in one that does not.
        """
        start, latest = part.start[steps], part.end[steps] - 1 + self._back[0]
        early = start + (steps - start) % (self._back[-1] - self._back[-2] if len(self._back) > 1 else 1)
        begin: np.ndarray = np.where(latest > start, np.minimum(steps, latest), early)
        return begin

    def _gather_part(self, part: _Part, steps: np.ndarray, things: np.ndarray) -> dict[str, np.ndarray]:
        more = {}
        if self.config.whole:
            rows = self._begin(part, steps)[:, None] + self._back - self._back[0]
            more["frame_mask"] = rows < part.end[steps, None]
            rows = np.minimum(rows, part.end[steps, None] - 1)
        else:
            # Before an episode's start its first frame is repeated, as the rollout's controller does.
            rows = np.maximum(steps[:, None] + self._back, part.start[steps, None])
        episode = part.episode[steps]
        clock = rows - part.start[steps, None]
        event = part.events[episode, things]
        pixels = part.pixels[rows]
        if self.config.tubes[1:]:
            more |= {
                "more_boxes": part.more_boxes[rows, things[:, None]],
                "more_visible": part.more_visible[rows, things[:, None]],
            }
        return {
            **more,
            "frames": pixels if part.cameras is None else pixels[:, :, part.cameras],
            "agent_pos": part.agent_pos[rows],
            "tokens": part.tokens[episode, things],
            "token_mask": part.token_mask[episode, things],
            "action": part.action(steps, things),
            "action_mask": part.has_label(steps, things),
            "boxes": part.boxes[rows, things[:, None]],
            "visible": part.visible[rows, things[:, None]],
            "event": (clock >= event[:, :1]) & (clock < event[:, 1:]),
        }
