"""Our policies as LeRobot's: `--policy.path=FOLDER` takes a folder that `eval.lerobot_plugin.folder` wrote.

R rows, T frames, V cameras, S chunk steps, A actions, P proprioception.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import NormalizationMode
from lerobot.optim.optimizers import AdamWConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from configs.evaluation import RunnerConfig
from eval.lerobot_plugin.folder import INSIDE
from vla_policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vla_policy.contract import Observation
from vla_policy.runner import PolicyRunner


@PreTrainedConfig.register_subclass("vla_policy")
@dataclass
class VLAConfig(PreTrainedConfig):
    """`actions`: names of the policy's actions that the task has, in its order. The frames are of `frame_ages` steps
    before now, and `chunk` is S.
    """

    actions: list[str] = field(default_factory=list)
    cameras: list[str] = field(default_factory=list)
    frame_ages: list[int] = field(default_factory=lambda: [0])
    chunk: int = 1
    execute: int = 2
    learning_rate: float = 1e-4
    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=dict)  # ours is in the weights

    @property
    def observation_delta_indices(self) -> list[int]:
        return [-age for age in self.frame_ages]

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.chunk))

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> AdamWConfig:
        return AdamWConfig(lr=self.learning_rate)

    def get_scheduler_preset(self) -> None:
        return None

    def validate_features(self) -> None:
        if not self.cameras or not self.actions:
            raise ValueError("such a policy is made by `python -m eval.lerobot_plugin.folder`, not from nothing")


class VLAPolicy(PreTrainedPolicy):
    """The network with its history of frames and its chunks; see `vla_policy.runner`."""

    config_class = VLAConfig
    name = "vla_policy"

    def __init__(self, config: VLAConfig, **_: Any) -> None:
        super().__init__(config)
        config.validate_features()
        self._checkpoint = load_checkpoint(Path(str(config.pretrained_path)) / INSIDE)
        names = self._checkpoint.purpose.action_names
        self._order = [names.index(action) for action in config.actions]
        self.model = self._checkpoint.policy
        self.reset()

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: Any, *, config: Any = None, **kwargs: Any) -> VLAPolicy:
        if config is None:
            config = PreTrainedConfig.from_pretrained(pretrained_name_or_path)
        config.pretrained_path = Path(pretrained_name_or_path)
        loaded: VLAPolicy = super().from_pretrained(pretrained_name_or_path, config=config, **kwargs)
        return loaded

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        began = self._checkpoint
        origin = {"trained_by": "LeRobot", "began_as": began.provenance}
        save_checkpoint(Checkpoint(began.policy, began.tokenizer, began.purpose, origin), save_directory / INSIDE)

    def get_optim_params(self) -> Any:
        return self.parameters()

    def reset(self) -> None:
        """New episodes begin, all at once."""
        self._runners: dict[int, PolicyRunner] = {}

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], **_: Any) -> Tensor:
        """Actions (R, A) for this step."""
        runner = self._runner(batch, self.config.execute)
        return self._ordered(torch.from_numpy(runner.act(self._seen(batch))))

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Any], **_: Any) -> Tensor:
        """Actions (R, S, A) for this step and the next ones, decided anew."""
        runner = self._runner(batch, 1)
        runner.act(self._seen(batch))
        assert runner.chunk is not None
        return self._ordered(runner.chunk.action)

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """The action head's loss on demonstrations; boxes and events, which LeRobot's datasets lack, are left out.

        Args:
            batch: `observation.images.CAMERA` (R, T, 3, H, W) in [0, 1], `observation.state` (R, T, P), `action`
                (R, S, A), `action_is_pad` (R, S), and `task`, R texts.
        """
        action = batch["action"]
        device = action.device
        pictures = torch.stack([batch[f"observation.images.{name}"] for name in self.config.cameras], dim=2)
        tokens, mask = self._checkpoint.tokenizer.encode(list(batch["task"]))
        observation = Observation(
            frames=(255 * pictures).round().to(torch.uint8),
            agent_pos=batch["observation.state"].float(),
            tokens=torch.from_numpy(tokens).to(device),
            token_mask=torch.from_numpy(mask).to(device),
        )
        target = torch.zeros(*action.shape[:2], self.model.shapes.actions, device=device)
        target[..., self._order] = action.float()
        followed = ~batch["action_is_pad"] if "action_is_pad" in batch else torch.ones_like(action[..., 0]).bool()
        features = self.model(observation)
        loss = self.model.head.loss(features.action, target, followed)
        return loss, {"action": loss.item()}

    def _runner(self, batch: dict[str, Any], execute: int) -> PolicyRunner:
        if execute not in self._runners:
            rows, device = len(batch["observation.state"]), str(batch["observation.state"].device)
            runner = PolicyRunner(self._checkpoint, rows, RunnerConfig(execute=execute), device)
            runner.reset(list(batch["task"]))
            self._runners[execute] = runner
        return self._runners[execute]

    def _seen(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """A row's observation each, as the runner wants it. Bytes came as floats, and become the same bytes again."""
        agent_pos = batch["observation.state"].float().cpu().numpy()
        pixels: dict[str, np.ndarray] = {}
        for name in self.config.cameras:
            picture = batch[f"observation.images.{name}"]
            pixels[name] = (255 * picture).round().to(torch.uint8).movedim(1, -1).cpu().numpy()
        return [
            {"pixels": {name: picture[row] for name, picture in pixels.items()}, "agent_pos": agent_pos[row]}
            for row in range(len(agent_pos))
        ]

    def _ordered(self, action: Tensor) -> Tensor:
        return action[..., self._order].float()
