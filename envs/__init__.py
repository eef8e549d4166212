"""MuJoCo table-top tasks, scripted experts and demonstrations.

Importing this package registers the tasks with Gymnasium and loads no simulator: `gymnasium.make("envs:vla/Track-v0")`.
"""

from __future__ import annotations

from envs.task import register_envs

register_envs()
