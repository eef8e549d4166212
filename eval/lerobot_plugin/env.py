"""LeRobot's description of our tasks: `--env.type=vla_policy --env.task=track`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig

from envs.task import find_task, use_task_modules
from eval.lerobot_plugin.world import ENV_ID


@EnvConfig.register_subclass("vla_policy")
@dataclass
class VLAEnv(EnvConfig):
    """A task of ours. `cameras` and `size` must be the policy's."""

    task: str = "track"
    cameras: list[str] = field(default_factory=lambda: ["front"])
    size: int = 64
    task_module: str = ""

    def __post_init__(self) -> None:
        use_task_modules(filter(None, [self.task_module]))
        spec = find_task(self.task)
        self.fps = spec.control_hz
        self.features = {
            "action": PolicyFeature(type=FeatureType.ACTION, shape=(len(spec.action_names),)),
            "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=(len(spec.agent_pos_names),)),
        }
        self.features_map = {"action": "action", "agent_pos": "observation.state"}
        for camera in self.cameras:
            key = f"pixels/{camera}"
            self.features[key] = PolicyFeature(type=FeatureType.VISUAL, shape=(self.size, self.size, 3))
            self.features_map[key] = f"observation.images.{camera}"

    @property
    def package_name(self) -> str:
        return "eval.lerobot_plugin.world"

    @property
    def gym_id(self) -> str:
        return ENV_ID

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "cameras": tuple(self.cameras),
            "size": self.size,
            "task_module": self.task_module,
        }
