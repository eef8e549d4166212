"""Registers the tasks with Gymnasium.

Gymnasium 1.0 dropped its plug-in entry points: `import envs`, or an id with the module in front
(`gymnasium.make("envs:vla/Track-v0")`), registers the tasks. Older tools that still read the `gymnasium.envs` entry
point find `register_envs` there.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from envs.tabletop.env import TabletopEnv

# Gymnasium id and class of each task: kept as strings, so that registering imports no simulator.
TASK_IDS: dict[str, tuple[str, str]] = {
    "reach": ("vla/Reach-v0", "envs.tabletop.tasks.reach:ReachEnv"),
    "track": ("vla/Track-v0", "envs.tabletop.tasks.track:TrackEnv"),
    "track_motion": ("vla/TrackMotion-v0", "envs.tabletop.tasks.track_motion:TrackMotionEnv"),
    "track_occlusion": ("vla/TrackOcclusion-v0", "envs.tabletop.tasks.track_occlusion:TrackOcclusionEnv"),
    "track_event": ("vla/TrackEvent-v0", "envs.tabletop.tasks.track_event:TrackEventEnv"),
}


def register_envs() -> None:
    """Make the tasks known to `gymnasium.make`; does nothing the second time."""
    for task, (env_id, _) in TASK_IDS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point="envs.task:make_task", kwargs={"task": task})


def check_task(task: str) -> None:
    """Raises a ValueError that names the nearest task if `task` is unknown."""
    if task not in TASK_IDS:
        near = difflib.get_close_matches(task, TASK_IDS, 1, 0.3)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"task {task!r} is unknown{hint}; choose one of {', '.join(TASK_IDS)}")


def make_task(task: str, **kwargs: Any) -> TabletopEnv:
    """The bare environment of a task by its short name, with the GL backend chosen; keywords as in `TabletopEnv`.

    Raises:
        ValueError: the task is unknown; the message names the nearest one.
    """
    from envs.gl import choose_gl_backend

    check_task(task)
    choose_gl_backend()
    create: Any = gymnasium.envs.registration.load_env_creator(TASK_IDS[task][1])
    env: TabletopEnv = create(**kwargs)
    return env
