"""Our five tasks in the registry. Loads no simulator: a test holds these figures to those of the environments."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

import gymnasium

from envs.task import TaskSpec, register_task

ARM_JOINTS = tuple(f"arm{i}" for i in range(1, 7))
_PLANE, _SPACE = ("dx", "dy"), ("dx", "dy", "dz")
_STAYING = ("track", "follow", "stay", "keep", "chase", "hover", "after", "with")
_TRACKED = "gripper within 4 cm of the target horizontally in 80 % of the last 60 % of the episode"


def _spec(name: str, env_id: str, actions: tuple[str, ...], **fields: Any) -> TaskSpec:
    """What our tasks share: one scene and one arm; and, unless it is given, a module with expert and reader."""
    module = f"envs.tabletop.tasks.{name}"
    return TaskSpec(
        name=name,
        env_id=env_id,
        control_hz=20,
        version=2,  # 1 showed the poses of 5 ms before
        cameras=("front", "wrist"),
        action_names=actions,
        agent_pos_names=("ee_x", "ee_y", "ee_z", "yaw_sin", "yaw_cos", "opening", *ARM_JOINTS),
        takes=("labels", "randomise", "no_cameras"),
        **{"expert": f"{module}:EXPERT", "reader": f"{module}:read", **fields},
    )


# Each task's description, and the class that makes it: as text, so that registering imports no simulator.
SPECS: dict[str, tuple[TaskSpec, str]] = {
    spec.name: (spec, f"envs.tabletop.tasks.{spec.name}:{kind}")
    for spec, kind in (
        (
            _spec(
                "reach",
                "vla/Reach-v0",
                _SPACE,
                success="gripper within 3 cm of the point 2 cm above the target for half a second, nowhere else before",
                example="reach the red ball",
                horizon=100,
                tolerance=0.03,
            ),
            "ReachEnv",
        ),
        (
            _spec(
                "track",
                "vla/Track-v0",
                _PLANE,
                success=_TRACKED,
                example="follow the purple cross",
                horizon=110,
                tolerance=0.04,
                verbs=_STAYING,
            ),
            "TrackEnv",
        ),
        (
            _spec(
                "track_motion",
                "vla/TrackMotion-v0",
                _PLANE,
                success=_TRACKED,
                example="track the one moving clockwise",
                expert="envs.tabletop.tasks.track:EXPERT",
                horizon=110,
                tolerance=0.04,
                verbs=_STAYING,
                specificity=1,
            ),
            "TrackMotionEnv",
        ),
        (
            _spec(
                "track_occlusion",
                "vla/TrackOcclusion-v0",
                _PLANE,
                success=f"{_TRACKED}, and within 3 cm in 80 % of those of its steps in which the target is hidden",
                example="stay over the blue cube",
                expert="envs.tabletop.tasks.track:EXPERT",
                reader="envs.tabletop.tasks.track:read",
                horizon=110,
                tolerance=0.04,
                verbs=_STAYING,
            ),
            "TrackOcclusionEnv",
        ),
        (
            _spec(
                "track_event",
                "vla/TrackEvent-v0",
                _SPACE,
                success=(
                    "gripper within 6 cm of home until the event starts; then, not later than 1.4 s, within 4 cm of "
                    "the target horizontally, and in 80 % of the event after that (to touch it, within 3 cm of the "
                    "point 2 cm above it for half a second); and home in 80 % of the time from 1.3 s after the "
                    "event's end"
                ),
                example="wait until the green ball stops, then touch it",
                horizon=120,
                tolerance=0.04,
                specificity=2,
            ),
            "TrackEventEnv",
        ),
    )
}


def register() -> None:
    """Make the tasks known to the registry and to `gymnasium.make`; does nothing the second time."""
    register_kinds(SPECS.values())


def register_kinds(specs: Iterable[tuple[TaskSpec, str]]) -> None:
    """The same for any tasks, each with the class that makes it, as "module:name"."""
    for spec, kind in specs:
        register_task(spec)
        if spec.env_id not in gymnasium.registry:
            gymnasium.register(
                spec.env_id,
                entry_point="envs.tabletop.specs:make",
                max_episode_steps=spec.horizon,
                kwargs={"kind": kind},
            )


def make(kind: str, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """The environment of a class named "module:name", with the GL backend chosen before MuJoCo is imported."""
    from envs.gl import choose_gl_backend

    choose_gl_backend()
    module, _, name = kind.partition(":")
    env: gymnasium.Env[Any, Any] = getattr(importlib.import_module(module), name)(**kwargs)
    return env
