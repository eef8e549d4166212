"""Configuration of an evaluation, and of how a policy acts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from configs.checks import check_kinds
from configs.seeds import split_seed


@dataclass(frozen=True, kw_only=True)
class RunnerConfig:
    """How predicted chunks are executed.

    Args:
        execute: control steps executed of a chunk before the policy is asked again.
        ensemble: with a value m, the policy is asked every step, and all predictions made for a step are averaged with
            weights exp(-m · i), where i = 0 is the oldest of them (Zhao et al. 2023, section 4: with m above 0 the
            oldest counts most). Below 0 the newest counts most, at 0 all count alike. `execute` must then be 1.
    """

    execute: int = 2
    ensemble: float | None = None

    def __post_init__(self) -> None:
        if self.execute < 1:
            raise ValueError(f"execute {self.execute} must be at least 1")
        if self.ensemble is not None and not math.isfinite(self.ensemble):
            raise ValueError(f"ensemble {self.ensemble} must be a finite number")
        if self.ensemble is not None and self.execute != 1:
            raise ValueError(f"ensemble needs execute 1, got {self.execute}: every step has to be predicted")


@dataclass(frozen=True, kw_only=True)
class TubeRules:
    """Rules of tIoU and vIoU that differ between this project, whose are the defaults, and published evaluators.

    Args:
        end: where an interval ends whose last frame is known, where frames are some of the steps: "next_frame", as a
            frame stands for the steps up to the next one; or "plus_one" after it, as published.
        hidden: what happens to frames in which the target is hidden: they are "dropped" from vIoU, or "counted" in its
            union with an overlap of 0.
        empty: what an episode is worth that has nothing to compare: it is "left_out" of the mean, or counts as "zero",
            as published.
    """

    end: Literal["next_frame", "plus_one"] = "next_frame"
    hidden: Literal["dropped", "counted"] = "dropped"
    empty: Literal["left_out", "zero"] = "left_out"

    def __post_init__(self) -> None:
        check_kinds("rules", self)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What to evaluate.

    Args:
        tasks: tasks by name; empty takes those the policy was trained on.
        episodes: episodes a condition; 200 or more for a figure worth quoting.
        seed: first seed within the test range, which training can never reach.
        workers: processes; 0 takes one a core. Outcomes do not depend on it.
        controls: conditions beside the plain policy, or just "all" or "none"; "all" takes those that a task offers.
        timeout: seconds without any progress after which a worker counts as hung.
        variation: how the tasks are tried, where they can be tried otherwise than usual, for example
            '{"stock": true, "horizon": 500}'; `vla tasks` lists what they have.
        runner: how predicted chunks are executed.
    """

    tasks: tuple[str, ...] = ()
    episodes: int = 200
    seed: int = 0
    workers: int = 0
    controls: tuple[str, ...] = ("shuffled_instruction",)
    timeout: float = 120.0
    variation: dict[str, Any] = field(default_factory=dict)
    runner: RunnerConfig = field(default_factory=RunnerConfig)

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"episodes {self.episodes} must be at least 1")
        if self.workers < 0:
            raise ValueError(f"workers {self.workers} must be 0 (one a core) or more")
        if not self.timeout > 0:
            raise ValueError(f"timeout {self.timeout} must be above 0 seconds")
        split_seed("test", self.seed + self.episodes - 1)
        split_seed("test", self.seed)
