"""Meta-World's fifty tasks in the registry. Loads neither Meta-World, which need not be installed, nor a simulator."""

from __future__ import annotations

from typing import Any

import gymnasium

from envs.metaworld.instructions import texts
from envs.task import TaskSpec, register_task

HORIZON = 400  # control steps, as in most published evaluations
CONTROL_HZ = 80
CAMERAS = ("corner2", "corner2_middle", "opposite", "gripper", "topview", "corner3")
ACTIONS = ("dx", "dy", "dz", "gripper")
AGENT_POS = ("ee_x", "ee_y", "ee_z", "gripper_opening")

MT10 = (
    "reach", "push", "pick-place", "door-open", "drawer-open", "drawer-close", "button-press-topdown",
    "peg-insert-side", "window-open", "window-close",
)  # fmt: skip

# By difficulty, as published results are grouped: when each task is done.
OUTCOMES: dict[str, dict[str, str]] = {
    "easy": {
        "button-press": "the button is pressed in",
        "button-press-topdown": "the button is pressed down",
        "button-press-topdown-wall": "the button behind the wall is pressed down",
        "button-press-wall": "the button behind the wall is pressed in",
        "coffee-button": "the coffee machine's button is pressed in",
        "dial-turn": "the dial is turned halfway round",
        "door-close": "the door is closed",
        "door-lock": "the latch is turned down",
        "door-open": "the door is open",
        "door-unlock": "the latch is turned sideways",
        "drawer-close": "the drawer is closed",
        "drawer-open": "the drawer is pulled out by 20 cm",
        "faucet-close": "the handle is turned clockwise by a quarter",
        "faucet-open": "the handle is turned counterclockwise by a quarter",
        "handle-press": "the handle is down",
        "handle-press-side": "the handle is down",
        "handle-pull": "the handle is up",
        "handle-pull-side": "the handle is up",
        "lever-pull": "the lever is upright",
        "peg-unplug-side": "the plug is out, within 7 cm of the goal",
        "plate-slide": "the plate is in the net",
        "plate-slide-back": "the plate is out of the net, within 7 cm of the goal",
        "plate-slide-back-side": "the plate is out of the net, within 7 cm of the goal",
        "plate-slide-side": "the plate is in the net",
        "reach": "the fingers are within 5 cm of the goal",
        "reach-wall": "the fingers are within 5 cm of the goal behind the wall",
        "window-close": "the window is closed",
        "window-open": "the window is open",
    },
    "medium": {
        "basketball": "the ball is at the hoop",
        "bin-picking": "the block is in the other bin",
        "box-close": "the lid is on the box",
        "coffee-pull": "the mug is within 7 cm of the goal in front of the machine",
        "coffee-push": "the mug is within 7 cm of its place under the machine",
        "hammer": "the nail is driven in",
        "peg-insert-side": "the peg's head is within 7 cm of the bottom of the hole",
        "push-wall": "the puck is within 7 cm of the goal behind the wall",
        "soccer": "the ball is within 7 cm of the goal",
        "sweep": "the block is within 5 cm of the goal at the table's right edge",
        "sweep-into": "the block is within 5 cm of the hole",
    },
    "hard": {
        "assembly": "the nut is on the peg",
        "hand-insert": "the block is within 5 cm of the goal in the hole",
        "pick-out-of-hole": "the puck is within 7 cm of the goal above the table",
        "pick-place": "the puck is within 7 cm of the goal in the air",
        "push": "the puck is within 5 cm of the goal",
        "push-back": "the block is within 7 cm of the goal",
    },
    "very hard": {
        "disassemble": "the nut is lifted off the peg",
        "pick-place-wall": "the puck is within 7 cm of the goal in the air behind the wall",
        "shelf-place": "the block is within 7 cm of the goal on the shelf",
        "stick-pull": "the thermos is pulled to the goal by the stick in its handle",
        "stick-push": "the thermos is within 12 cm of the goal, and the stick in the hand",
    },
}


def _spec(name: str, difficulty: str, outcome: str) -> TaskSpec:
    return TaskSpec(
        name=f"metaworld/{name}",
        env_id=f"metaworld/{name}-v3",
        success=f"{outcome}, as Meta-World measures it",
        example=texts(name, "train")[0],
        horizon=HORIZON,
        control_hz=CONTROL_HZ,
        cameras=CAMERAS,
        action_names=ACTIONS,
        agent_pos_names=AGENT_POS,
        takes=("labels", "no_cameras", "on_demand"),
        variations={"stock": False, "horizon": HORIZON},
        expert="envs.metaworld.expert:expert",
        suites=(*(("metaworld/mt10",) if name in MT10 else ()), "metaworld/mt50"),
        difficulty=difficulty,
        packages=("metaworld",),
    )


# By Meta-World's name.
SPECS: dict[str, TaskSpec] = {
    name: _spec(name, difficulty, outcome)
    for difficulty, outcomes in OUTCOMES.items()
    for name, outcome in outcomes.items()
}


def register() -> None:
    """Make the tasks known to the registry and to `gymnasium.make`; does nothing the second time."""
    for name, spec in SPECS.items():
        register_task(spec)
        if spec.env_id not in gymnasium.registry:
            gymnasium.register(
                spec.env_id,
                entry_point="envs.metaworld.specs:make",
                max_episode_steps=spec.horizon,
                kwargs={"name": name},
            )


def make(name: str, **settings: Any) -> gymnasium.Env[Any, Any]:
    """The environment of a task, with the GL backend chosen before MuJoCo is imported.

    Raises:
        ImportError: Meta-World is not installed.
    """
    from envs.gl import choose_gl_backend

    choose_gl_backend()
    from envs.metaworld.env import make as make_env

    return make_env(name, **settings)
