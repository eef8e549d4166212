"""Configuration of a collection of demonstrations."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from configs.seeds import SEED_RANGE

SIZES = (16, 512)  # pixels a side: smaller shows no object, larger fits no scene's off-screen buffer
SHARD_EPISODES = 25
SHARD_SEEDS = 1_000  # seeds a shard may try before it gives up


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """How to demonstrate a task.

    Args:
        episodes: successful episodes to keep.
        expert: folder of an expert that `vla rl` learned, which demonstrates in place of the task's own.
        cameras: cameras to record.
        size: side of the pictures in pixels.
        noise: standard deviation of the action noise in the noisiest episodes; each draws its own level up to it.
        detours: of tasks whose expert can act on any object: share of the episodes that begin on the way to another
            object, while the label says where to go. Without them the gripper is always near the target, and a policy
            learns to look there instead of reading.
        counterfactual: of tasks whose scene can be told something else (`reset` takes `told`): share of the episodes
            that are. Without them the scene alone says what to do, and a policy need not read.
        plan_steps: of tasks with labels for several objects: actions that a label looks ahead, which is the longest
            chunk a policy can learn from it.
        randomise: vary light, table colour and camera pose, in tasks that can.
        seed: another one gives other scenes: no two of a few hundred neighbouring seeds share any.
        split: "train" or "validation"; their seeds never meet.
        workers: parallel processes; 0 takes one a core. Does not change what is collected.
        timeout: seconds without any progress after which a worker counts as hung.
    """

    episodes: int = 1500
    expert: str = ""
    cameras: tuple[str, ...] = ("front",)
    size: int = 64
    noise: float = 0.4
    detours: float = 0.7
    counterfactual: float = 0.0
    plan_steps: int = 8
    randomise: bool = False
    seed: int = 0
    split: Literal["train", "validation"] = "train"
    workers: int = 0
    timeout: float = 120.0

    def __post_init__(self) -> None:
        for name in ("episodes", "plan_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"collect.cameras {list(self.cameras)} must name one or more cameras, each once")
        if not SIZES[0] <= self.size <= SIZES[1]:
            raise ValueError(f"size {self.size} must lie between {SIZES[0]} and {SIZES[1]} pixels")
        if not 0 <= self.noise <= 2:
            raise ValueError(f"noise {self.noise} must lie between 0 and 2 (1 is full speed)")
        for name in ("detours", "counterfactual"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} must lie between 0 and 1")
        if self.split not in ("train", "validation"):
            raise ValueError(f"split {self.split!r} must be 'train' or 'validation'; test seeds are for evaluation")
        if self.workers < 0:
            raise ValueError(f"workers {self.workers} must be 0 (one a core) or more")
        if not self.timeout > 0:
            raise ValueError(f"timeout {self.timeout} must be above 0 seconds")
        if not 0 <= self.seed < SEED_RANGE:
            raise ValueError(f"seed {self.seed} must lie between 0 and {SEED_RANGE - 1}")
        if self.shards * SHARD_SEEDS > SEED_RANGE:
            raise ValueError(f"episodes {self.episodes} need more seeds than there are; collect at most 2,500,000")

    @property
    def shards(self) -> int:
        return -(-self.episodes // SHARD_EPISODES)

    def content(self, task: str) -> dict[str, Any]:
        """What decides the data: the task and everything but how the work is shared out."""
        left_out = ("workers", "timeout")
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items() if k not in left_out}
        return {"task": task, **values}
