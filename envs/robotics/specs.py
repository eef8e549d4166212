"""Fetch's tasks in the registry. Loads neither Gymnasium-Robotics, which need not be installed, nor a simulator."""

from __future__ import annotations

from typing import Any

import gymnasium

from envs.robotics.instructions import texts
from envs.task import TaskSpec, register_task

HORIZON = 50  # control steps, as Gymnasium-Robotics registers them
CONTROL_HZ = 25
CAMERAS = ("left", "right", "front", "gripper")
ACTIONS = ("dx", "dy", "dz", "gripper")
AGENT_POS = ("ee_x", "ee_y", "ee_z", "gripper_opening")
TOLERANCE = 0.05

# By our name: Gymnasium-Robotics' name, and when the task is done.
TASKS = {
    "reach": ("FetchReach-v4", "the gripper is within 5 cm of the marker at any step"),
    "push": ("FetchPush-v4", "the block is within 5 cm of the marker on the table at any step"),
    "pick-and-place": ("FetchPickAndPlace-v4", "the block is within 5 cm of the marker, in half the scenes in the air"),
}

SPECS: dict[str, TaskSpec] = {
    name: TaskSpec(
        name=f"robotics/fetch-{name}",
        env_id=f"robotics/{registered}",
        success=f"{outcome}, as Gymnasium-Robotics measures it",
        example=texts(name, "train")[0],
        horizon=HORIZON,
        control_hz=CONTROL_HZ,
        cameras=CAMERAS,
        action_names=ACTIONS,
        agent_pos_names=AGENT_POS,
        takes=("labels", "no_cameras"),
        expert="envs.robotics.expert:expert",
        suites=("robotics/fetch",),
        tolerance=TOLERANCE,
        packages=("gymnasium-robotics",),
    )
    for name, (registered, outcome) in TASKS.items()
}


def register() -> None:
    """Make the tasks known to the registry and to `gymnasium.make`; does nothing the second time."""
    for name, spec in SPECS.items():
        register_task(spec)
        if spec.env_id not in gymnasium.registry:
            gymnasium.register(
                spec.env_id,
                entry_point="envs.robotics.specs:make",
                max_episode_steps=spec.horizon,
                kwargs={"name": name},
            )


def make(name: str, **settings: Any) -> gymnasium.Env[Any, Any]:
    """The environment of a task, with the GL backend chosen before MuJoCo is imported.

    Raises:
        ImportError: Gymnasium-Robotics is not installed.
    """
    from envs.gl import choose_gl_backend

    choose_gl_backend()
    from envs.robotics.env import make as make_env

    return make_env(name, **settings)
