"""The conditions of an evaluation: the policy as meant, and the controls that say what its success rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from configs.names import unknown
from envs.rollout import Scenario, blank
from envs.task import Env, TaskSpec, offers
from eval.results import POLICY, ConditionResult


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What one condition changes.

    sentence: that in words, for reports. options: for the environment's reset. counterfactual: read an instruction for
    another thing of the scene. pictures: what becomes of the frames. actor: who acts.
    """

    sentence: str
    options: dict[str, str] = field(default_factory=dict)
    counterfactual: bool = False
    pictures: Literal["as_seen", "blank", "frozen"] = "as_seen"
    actor: Literal["policy", "previous_action", "random", "expert"] = "policy"

    @property
    def scenario(self) -> Scenario:
        """How its episodes begin, and what the actor sees of them."""
        view = blank if self.pictures == "blank" else None
        return Scenario(options=self.options, counterfactual=self.counterfactual, view=view)

    def missing(self, env: Env, spec: TaskSpec) -> str:
        """What a task lacks for this condition, in words; empty if it can be run."""
        offered = offers(env, "reset_options") or {}
        for option, value in self.options.items():
            if value not in offered.get(option, ()):
                return f"reset takes no {option} {value!r}"
        if self.counterfactual and offers(env, "counterfactual") is None:
            return "it has no counterfactual instructions"
        if self.actor == "expert" and not spec.expert:
            return "it has no expert"
        return ""


# In the order of the reports.
CONTROLS: dict[str, Condition] = {
    POLICY: Condition(sentence="the policy as it is meant to be used"),
    "held_out_phrasing": Condition(
        sentence="phrasings that were never trained on",
        options={"phrasing": "held_out"},
    ),
    "unseen_combination": Condition(
        sentence="a colour and shape that were never trained on together",
        options={"combinations": "held_out"},
    ),
    "shuffled_instruction": Condition(
        sentence="told another thing of the same scene, judged against the original one",
        counterfactual=True,
    ),
    "frozen_frames": Condition(
        sentence="the newest frame repeated in place of the history",
        pictures="frozen",
    ),
    "blank_image": Condition(
        sentence="every picture replaced by a blank one",
        pictures="blank",
    ),
    "previous_action": Condition(
        sentence="the policy is asked once, and its first action repeated to the end",
        actor="previous_action",
    ),
    "random_action": Condition(
        sentence="uniform random actions",
        actor="random",
    ),
    "expert": Condition(
        sentence="the expert, which knows where everything is",
        actor="expert",
    ),
}


def in_order(conditions: Mapping[str, ConditionResult]) -> dict[str, ConditionResult]:
    """Those of `CONTROLS` in their order, then others as they come."""
    known = [name for name in CONTROLS if name in conditions]
    return {name: conditions[name] for name in dict.fromkeys([*known, *conditions])}


def condition_title(name: str) -> str:
    return name.replace("_", " ")


def describe(name: str) -> str:
    """A condition in words, "" for one that is not ours."""
    return CONTROLS[name].sentence if name in CONTROLS else ""


def choose_controls(names: str | Sequence[str]) -> list[str]:
    """Condition names from "all", "none" or a comma-separated list; the plain policy always comes first.

    Raises:
        ValueError: a name is unknown; the message names the nearest one.
    """
    wanted = names.split(",") if isinstance(names, str) else list(names)
    wanted = [name.strip() for name in wanted if name.strip()]
    if wanted == ["all"]:
        wanted = list(CONTROLS)
    elif wanted == ["none"]:
        wanted = []
    for name in wanted:
        if name not in CONTROLS:
            raise unknown("control", name, CONTROLS, f"choose all, none or some of {', '.join(CONTROLS)}")
    return [POLICY, *(name for name in CONTROLS if name in wanted and name != POLICY)]
