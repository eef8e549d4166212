"""Configuration of what learns by reinforcement: experts, and policies that were cloned before."""

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
        updates: updates for each control step of each environment, rounded to a whole number for all of them together,
            at least one. An update takes several times as long as a step of the simulation.
        discount: of the reward of the next step.
        warmup: control steps at random before the first update.
        memory: control steps that are remembered.
        demonstrations: control steps of the task's own expert that are remembered from the beginning (Vecerik et al.
            2017), with noise on what it does; 0 learns from nothing.
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
    updates: float = 1.0
    discount: float = 0.98
    warmup: int = 5_000
    memory: int = 300_000
    demonstrations: int = 0
    judge_every: int = 20_000
    episodes: int = 50
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        check_kinds("rl", self)
        least = dict.fromkeys(("steps", "envs", "batch", "memory", "judge_every", "episodes", "threads"), 1)
        check_least("rl", self, **least, warmup=0, demonstrations=0, seed=0)
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"rl.hidden {list(self.hidden)} must name one or more widths, each at least 1")
        for name in ("learning_rate", "updates"):
            if not getattr(self, name) > 0:
                raise ValueError(f"rl.{name} {getattr(self, name)} must be above 0")
        if not 0 <= self.discount < 1:
            raise ValueError(f"rl.discount {self.discount} must lie in [0, 1)")
        if self.memory < self.envs:
            raise ValueError(f"rl.memory {self.memory} must hold a step of each of the {self.envs} environments")
        if self.steps <= self.warmup:
            raise ValueError(f"rl.steps {self.steps} must exceed rl.warmup {self.warmup}: before, nothing is learned")
        if self.demonstrations > self.memory:
            raise ValueError(f"rl.demonstrations {self.demonstrations} must not exceed rl.memory {self.memory}")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How a policy that was cloned goes on by proximal policy optimisation (Schulman et al. 2017).

    A decision is what `eval.runner.execute` control steps of a chunk are: one action of the algorithm. The action head
    learns, and a value head beside it; what is seen and read, and how both are fused, stays as it was cloned.

    Args:
        steps: decisions, of all environments together, rounded up to whole updates of `envs` times `decisions`.
        envs: environments side by side.
        processes: each in a process of its own.
        decisions: of each environment before an update.
        epochs: how often an update goes through its decisions.
        batch: decisions of one step of the optimiser, 2 or more.
        learning_rate: of Adam.
        discount: of the reward of the next decision.
        smoothing: lambda of generalised advantage estimation.
        clip: how far the probability of an action may move in an update.
        deviation: standard deviation of what is tried at first, 1 being full speed; it is learned.
        anchor: weight of the divergence from the cloned policy, in the states that are visited and, with --data, in
            those of the demonstrations: what was learned before is not unlearned.
        warmup: updates of the value head alone.
        judge_every: updates between two judgements on validation scenes; the best policy is kept.
        episodes: of a judgement.
        seed: of scenes and of what is tried.
    """

    steps: int = 40_000
    envs: int = 4
    processes: bool = True
    decisions: int = 256
    epochs: int = 6
    batch: int = 256
    learning_rate: float = 5e-4
    discount: float = 0.97
    smoothing: float = 0.95
    clip: float = 0.2
    deviation: float = 0.3
    anchor: float = 0.02
    warmup: int = 2
    judge_every: int = 5
    episodes: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        check_kinds("finetune", self)
        least = ("steps", "envs", "decisions", "epochs", "batch", "judge_every", "episodes")
        check_least("finetune", self, **dict.fromkeys(least, 1), warmup=0, seed=0)
        for name in ("learning_rate", "clip", "deviation"):
            if not getattr(self, name) > 0:
                raise ValueError(f"finetune.{name} {getattr(self, name)} must be above 0")
        for name in ("discount", "smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"finetune.{name} {getattr(self, name)} must lie in [0, 1]")
        if self.anchor < 0:
            raise ValueError(f"finetune.anchor {self.anchor} must be 0 or more")
        if self.envs * self.decisions < 2 or self.batch < 2:
            raise ValueError("finetune.envs times finetune.decisions, and finetune.batch, must be 2 or more")
        updates = -(-self.steps // (self.envs * self.decisions))
        if updates <= self.warmup:
            raise ValueError(
                f"finetune.steps {self.steps} make {updates} updates of {self.envs} times {self.decisions} decisions, "
                f"and the first {self.warmup} (finetune.warmup) do not touch the policy; raise finetune.steps"
            )
