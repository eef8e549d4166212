"""The tasks with contact in the registry. Loads no simulator: a test holds its figures to those of the environments."""

from __future__ import annotations

from typing import Any

from envs.tabletop.specs import ARM_JOINTS, register_kinds
from envs.task import TaskSpec


def _spec(name: str, env_id: str, **fields: Any) -> TaskSpec:
    """What they share: one arm at one table, and a module with expert and reader."""
    return TaskSpec(
        name=name,
        env_id=env_id,
        control_hz=20,
        cameras=("front", "wrist", "left", "right"),
        agent_pos_names=("ee_x", "ee_y", "ee_z", "yaw_sin", "yaw_cos", "opening", *ARM_JOINTS),
        takes=("labels", "no_cameras", "on_demand"),
        expert=f"envs.contact.{name}:expert",
        reader=f"envs.contact.{name}:read",
        specificity=1,
        **fields,
    )


# Each task's description, and the class that makes it: as text, so that registering imports no simulator.
SPECS: dict[str, tuple[TaskSpec, str]] = {
    spec.name: (spec, f"envs.contact.{spec.name}:{kind}")
    for spec, kind in (
        (
            _spec(
                "push",
                "vla/Push-v0",
                success="the named block's middle is on the named mat, at rest for a quarter of a second",
                example="push the red cube onto the green mat",
                horizon=200,
                action_names=("dx", "dy", "dz"),
                verbs=("push", "slide", "shove", "move", "bring", "mat", "pad"),
                version=2,
            ),
            "PushTask",
        ),
        (
            _spec(
                "place",
                "vla/Place-v0",
                success=(
                    "told to put it, the named thing lies in the named bowl, let go and at rest for a quarter of a "
                    "second; told to lift it, both fingers hold it 10 cm higher for half a second"
                ),
                example="put the blue ball into the yellow bowl",
                horizon=240,
                action_names=("dx", "dy", "dz", "yaw_rate", "gripper"),
                verbs=("put", "place", "drop", "lift", "pick", "raise", "hold", "bowl", "dish"),
                version=2,
            ),
            "PlaceTask",
        ),
        (
            _spec(
                "stack",
                "vla/Stack-v0",
                success="the named cube lies on the other named one, let go and at rest for a quarter of a second",
                example="put the red cube on the green one",
                horizon=240,
                action_names=("dx", "dy", "dz", "yaw_rate", "gripper"),
                verbs=("stack", "put", "set", "place", "top", "on"),
            ),
            "StackTask",
        ),
        (
            _spec(
                "catch",
                "vla/Catch-v0",
                success="both fingers hold the named cube 8 cm above where it lay for 0.4 seconds",
                example="catch the one going clockwise",
                horizon=160,
                action_names=("dx", "dy", "dz", "yaw_rate", "gripper"),
                verbs=("grab", "catch", "grasp", "take"),
                version=3,
            ),
            "CatchTask",
        ),
    )
}


def register() -> None:
    """Make the tasks known to the registry and to `gymnasium.make`; does nothing the second time."""
    register_kinds(SPECS.values())
