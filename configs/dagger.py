"""Configuration of DAgger (Ross et al. 2011): the policy acts, the expert labels what it visits, training goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.checks import check_kinds, check_least

FIRST_SEED = 500  # of the rounds' collections, beyond the demonstrations' own: neighbouring seeds share no scene


@dataclass(frozen=True, kw_only=True)
class DaggerConfig:
    """How rounds of DAgger go.

    Who acts is drawn anew after every `stretch` steps: in round i (1, 2, ...) the expert with probability
    max(beta^i, beta_least), else the policy. The expert labels every state with its clean action, whoever acts.

    An expert that plans labels each state with whole chunks. Any other one labels it with one action, and the labels
    of successive states are a chunk only where the expert acts. Elsewhere only the first label counts. That is why the
    expert goes on acting for stretches, and in late rounds, too: whole chunks begin where the policy has led.

    Args:
        rounds: rounds of collection and training.
        episodes: episodes a round and task; with `focus`, on the average over the tasks.
        focus: share a round's episodes out by what the policy failed in when it was last judged: more of the tasks that
            it cannot do, at least a tenth of `episodes` of each. Half of the samples of its training are shared out
            so, too; of the other half, each task has as many. Needs `validation`.
        beta: probability, in the first round, that the expert acts; its powers are those of later rounds. At 1 the
            policy never acts: cloning with as many labels.
        beta_least: what that probability does not fall below. Tasks whose expert plans can do with 0.
        stretch: control steps that whoever was drawn acts for; 1 draws anew at each decision of the policy, as the
            paper does, 0 once an episode. Choose it longer than `policy.head.chunk`.
        steps: optimiser steps a round.
        learning_rate: peak of each round's own warm-up and cosine, lower than that of the first training: the weights
            need not go far.
        blend: how much of a round's training counts: the round's policy is a mean of the weights that it began with and
            those that it ended with, with this share of the latter (Wortsman et al. 2022). Below 1, less is lost of
            what the round's data do not show. The next round then begins with a new optimiser.
        keep_failures: keep the episodes that failed: what led there has to be learned from most.
        max_steps: control steps after which an episode is cut; 0 leaves the task's own horizon.
        validation: validation episodes a task after each round, none of them a test seed; 0 judges nothing.
    """

    rounds: int = 4
    episodes: int = 50
    focus: bool = False
    beta: float = 0.5
    beta_least: float = 0.2
    stretch: int = 20
    steps: int = 500
    learning_rate: float = 3e-4
    blend: float = 1.0
    keep_failures: bool = True
    max_steps: int = 0
    validation: int = 50

    def __post_init__(self) -> None:
        check_kinds("dagger", self)
        check_least("dagger", self, rounds=1, episodes=1, steps=1, stretch=0, max_steps=0, validation=0)
        if self.focus and not self.validation:
            raise ValueError("dagger.focus needs to know what fails; set dagger.validation to 1 or more")
        for name in ("beta", "beta_least"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"dagger.{name} {getattr(self, name)} must lie in [0, 1]")
        if not 0 < self.blend <= 1:
            raise ValueError(f"dagger.blend {self.blend} must be above 0 and at most 1")
        if not self.learning_rate > 0:
            raise ValueError(f"dagger.learning_rate {self.learning_rate} must be above 0")

    def shared_out(self, judged: Mapping[str, tuple[int, int]], tasks: Sequence[str]) -> dict[str, int]:
        """Episodes of each task in a round.

        Args:
            judged: of each task, successes and episodes when the policy was last judged; empty if it was not.
        """
        if not self.focus or not judged:
            return dict.fromkeys(tasks, self.episodes)
        least = max(1, self.episodes // 10)
        rest = (self.episodes - least) * len(tasks)
        return {task: least + round(rest * share) for task, share in _failing(judged, tasks).items()}

    def weights(self, judged: Mapping[str, tuple[int, int]], tasks: Sequence[str]) -> dict[str, float] | None:
        """How much each task counts in a round's training; None: alike. For the arguments see `shared_out`."""
        if not self.focus or not judged:
            return None
        return {task: 0.5 / len(tasks) + 0.5 * share for task, share in _failing(judged, tasks).items()}

    def share(self, number: int) -> float:
        """Probability that the expert acts in a round (1, 2, ...)."""
        return float(max(self.beta**number, self.beta_least))

    def mixture(self) -> dict[str, Any]:
        """What decides a round's data, given the policy and the share."""
        return {name: getattr(self, name) for name in ("stretch", "keep_failures", "max_steps")}


def _failing(judged: Mapping[str, tuple[int, int]], tasks: Sequence[str]) -> dict[str, float]:
    """Each task's share of what fails."""
    # Laplace's rule: few episodes without a failure do not prove that there is none.
    rates = {task: (judged[task][1] - judged[task][0] + 1) / (judged[task][1] + 2) for task in tasks}
    return {task: rate / sum(rates.values()) for task, rate in rates.items()}
