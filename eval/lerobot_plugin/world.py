"""A task of ours as `lerobot-eval` drives one. Knows Gymnasium alone.

It reads `pixels`, `agent_pos`, `task_description`, `task`, `_max_episode_steps`, `metadata["render_fps"]`, `render` and
`is_success` of the last step. It looks for attributes on what it made, and not below Gymnasium's wrappers.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.task import ActionScale, find_task, instruction_of, make_task, use_task_modules

ENV_ID = "vla_policy/LeRobotWorld-v0"


class LeRobotWorld(gymnasium.Env[dict[str, Any], np.ndarray]):
    """A task by its name, with actions in [-1, 1].

    Args:
        task: as `vla tasks` lists it.
        cameras: those that the policy sees.
        size: pixels a side.
        task_module: that registers tasks, as for `--task-module`.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}  # type: ignore[misc]

    def __init__(self, *, task: str, cameras: tuple[str, ...], size: int, task_module: str = "") -> None:
        use_task_modules(filter(None, [task_module]))
        self.spec_of_task = spec = find_task(task)
        self._env = make_task(task, cameras=tuple(cameras), size=size, labels=False)
        self._scale = ActionScale(self._env.action_space)
        picture = spaces.Box(0, 255, (size, size, 3), np.uint8)
        everywhere = spaces.Box(-np.inf, np.inf, (len(spec.agent_pos_names),), np.float32)
        self.observation_space = spaces.Dict(
            {"pixels": spaces.Dict(dict.fromkeys(cameras, picture)), "agent_pos": everywhere}
        )
        self.action_space = spaces.Box(-1, 1, (len(spec.action_names),), np.float32)
        self.metadata = {**self.metadata, "render_fps": spec.control_hz}  # type: ignore[misc]
        self.task, self.task_description = task, ""
        self._max_episode_steps = spec.horizon
        self._camera = cameras[0]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        seen, info = self._env.reset(seed=seed, options=options)
        self.task_description = instruction_of(self._env, seen)
        return self._shown(seen), self._told(info)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        seen, reward, terminated, truncated, info = self._env.step(self._scale.to_task(action))
        return self._shown(seen), float(reward), bool(terminated), bool(truncated), self._told(info)

    def render(self) -> np.ndarray:
        return self._picture

    def close(self) -> None:
        self._env.close()

    def _shown(self, seen: dict[str, Any]) -> dict[str, Any]:
        pixels = {name: np.asarray(seen["pixels"][name]) for name in self.observation_space["pixels"]}  # type: ignore[index]
        self._picture = pixels[self._camera]
        return {"pixels": pixels, "agent_pos": seen["agent_pos"]}

    def _told(self, info: dict[str, Any]) -> dict[str, Any]:
        return {"is_success": bool(info["is_success"])}


if ENV_ID not in gymnasium.registry:
    # Without Gymnasium's wrappers, which would hide the attributes.
    gymnasium.register(ENV_ID, entry_point=f"{__name__}:LeRobotWorld", order_enforce=False, disable_env_checker=True)
