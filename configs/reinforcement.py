"""Configuration of an expert learned by reinforcement."""

from __future__ import annotations

from dataclasses import dataclass

from configs.checks import check_kinds, check_least


@dataclass(frozen=True, kw_only=True)
class RLConfig:
    """How an expert learns by soft actor-critic (Haarnoja et al. 2018), from the simulation's state and a dense reward.

    Args:
        steps: control steps, of all environments together.
        envs: environments side by side.
        hidden: widths of the hidden layers, of the actor and of both critics.
        learning_rate: of Adam.
        batch: remembered steps an update.
        updates: updates for each control step of each environment.
        discount: of the reward of the next step.
        warmup: control steps at random before the first update.
        memory: control steps that are remembered.
        judge_every: control steps between two judgements on validation scenes; the best expert is kept.
        episodes: of a judgement.
        seed: of weights, scenes and exploration.
        threads: CPU threads of the updates; for networks as small as these one is fastest.
    """

    steps: int = 300_000
    envs: int = 4
    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 5e-4
    batch: int = 256
    updates: int = 1
    discount: float = 0.98
    warmup: int = 5_000
    memory: int = 300_000
    judge_every: int = 20_000
    episodes: int = 50
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        check_kinds("rl", self)
        least = dict.fromkeys(("steps", "envs", "batch", "updates", "memory", "judge_every", "episodes", "threads"), 1)
        check_least("rl", self, **least, warmup=0, seed=0)
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"rl.hidden {list(self.hidden)} must name one or more widths, each at least 1")
        if not self.learning_rate > 0:
            raise ValueError(f"rl.learning_rate {self.learning_rate} must be above 0")
        if not 0 <= self.discount < 1:
            raise ValueError(f"rl.discount {self.discount} must lie in [0, 1)")
        if self.memory < self.envs:
            raise ValueError(f"rl.memory {self.memory} must hold a step of each of the {self.envs} environments")
