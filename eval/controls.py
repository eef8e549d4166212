"""The conditions of an evaluation: the policy as meant, and the controls that say what its success rests on."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from eval.results import POLICY


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What one condition changes.

    options: for the environment's reset. counterfactual: read an instruction for another object of the scene.
    pictures: what becomes of the frames. actor: who acts; "previous_action" repeats the policy's first action.
    """

    options: dict[str, Any] = field(default_factory=dict)
    counterfactual: bool = False
    pictures: Literal["as_seen", "blank", "frozen"] = "as_seen"
    actor: Literal["policy", "previous_action", "expert"] = "policy"


CONTROLS: dict[str, Condition] = {
    POLICY: Condition(),
    "shuffled_instruction": Condition(counterfactual=True),
    "held_out_phrasing": Condition(options={"phrasing": "held_out"}),
    "unseen_combination": Condition(options={"combinations": "held_out"}),
    "frozen_frames": Condition(pictures="frozen"),
    "blank_image": Condition(pictures="blank"),
    "previous_action": Condition(actor="previous_action"),
    "expert": Condition(actor="expert"),
}


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
            near = difflib.get_close_matches(name, CONTROLS, 1, 0.4)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"control {name!r} is unknown{hint}; choose all, none or some of {', '.join(CONTROLS)}")
    return [POLICY, *(name for name in CONTROLS if name in wanted and name != POLICY)]
