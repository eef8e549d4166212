"""MuJoCo table-top tasks, scripted experts and demonstrations.

Importing this package registers the tasks with Gymnasium and loads no simulator.
"""

from envs.registration import register_envs

register_envs()
