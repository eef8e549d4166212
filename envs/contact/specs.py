"""The tasks with contact in the registry. Loads no simulator: a test holds its figures to those of the environments."""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium

from envs.tabletop.specs import ARM_JOINTS
from envs.task import TaskSpec, register_task

# Each task's description, and the class that makes it: as text, so that registering imports no simulator.
SPECS: dict[str, tuple[TaskSpec, str]] = {
    "push": (
        TaskSpec(
            name="push",
            env_id="vla/Push-v0",
            success="the named block's middle is on the named mat, at rest for a quarter of a second",
            example="push the red cube onto the green mat",
            horizon=200,
            control_hz=20,
            cameras=("front", "wrist"),
            action_names=("dx", "dy", "dz"),
            agent_pos_names=("ee_x", "ee_y", "ee_z", "yaw_sin", "yaw_cos", "opening", *ARM_JOINTS),
            takes=("labels", "no_cameras", "on_demand"),
            expert="envs.contact.push:expert",
            reader="envs.contact.push:read",
            verbs=("push", "slide", "shove", "move", "bring", "mat", "pad"),
            specificity=1,
        ),
        "envs.contact.push:PushTask",
    ),
}


def register() -> None:
    """Make the tasks known to the registry and to `gymnasium.make`; does nothing the second time."""
    for spec, kind in SPECS.values():
        register_task(spec)
        if spec.env_id not in gymnasium.registry:
            gymnasium.register(
                spec.env_id,
                entry_point="envs.contact.specs:make",
                max_episode_steps=spec.horizon,
                kwargs={"kind": kind},
            )


def make(kind: str, **settings: Any) -> gymnasium.Env[Any, Any]:
    """The environment of a task, with the GL backend chosen before MuJoCo is imported."""
    from envs.gl import choose_gl_backend

    choose_gl_backend()
    module, _, name = kind.partition(":")
    made: gymnasium.Env[Any, Any] = getattr(importlib.import_module(module), name)(**settings)
    return made
