"""The policy: encoder → fusion with language → grounding decoder → action head.

Three methods: `loss(batch)`, `act(observation)`, and `forward`, which both share. Frame history, chunk execution and
ensembling are the rollout controller's; nothing here knows a simulator.

B batch, T frames, V cameras, L words, P proprioception, S chunk steps, A actions, D width.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from configs.checks import own_settings
from configs.policy import PolicyConfig
from vla_policy.contract import ActionChunk, Aux, Batch, Described, Observation, Shapes
from vla_policy.decision import ActionHead, HeadSetup, VotingHead
from vla_policy.dialogue import FusionSetup, LanguageSetup
from vla_policy.encoders import ENCODERS
from vla_policy.fusion import FUSIONS
from vla_policy.grounding.decoder import STEP_SCALE, SpaceTimeDecoder, Tube
from vla_policy.grounding.losses import grounding_loss
from vla_policy.heads import HEADS
from vla_policy.language import LANGUAGES
from vla_policy.normaliser import Normaliser
from vla_policy.vision import EncoderSetup

Setup = TypeVar("Setup")
Part = TypeVar("Part")
PATH_SCALE = 8.0  # brings boxes to unit scale: the objects' paths span about a quarter of the picture


def path_features(boxes: Tensor, visible: Tensor | None = None) -> Tensor:
    """The target's path for the action head, `(B, T, 4)` → `(B, 4T)`: the newest box, centred, and the steps that led
    there, enlarged. Given positions alone, the head needed three times the samples to find velocities.

    With the probability `(B, T)` that the target is visible → `(B, 9T - 4)`: these probabilities, and all boxes and
    steps as far as they can be relied on, for the newest box may be nothing but a guess.
    """
    places, steps = PATH_SCALE * (boxes - 0.5), STEP_SCALE * boxes.diff(dim=1)
    if visible is None:
        return torch.cat([places[:, -1], steps.flatten(1)], dim=-1)
    seen = visible[..., None]
    reliable = places * seen, steps * seen[:, 1:] * seen[:, :-1]
    return torch.cat([visible, *(part.flatten(1) for part in reliable)], dim=-1)


def path_width(looks: int, *, visible: bool) -> int:
    """Numbers that `path_features` makes of so many frames."""
    return 9 * looks - 4 if visible else 4 * looks


def _built(section: str, settings: Any, registry: Mapping[str, Callable[[Any, Setup], Part]], setup: Setup) -> Part:
    """The part of this name, from its own settings and what all parts of its kind are built with.

    Raises:
        ValueError: no part of this name is registered.
    """
    if settings.name not in registry:
        near = difflib.get_close_matches(settings.name, list(registry), 1, 0.4)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"{section}.name {settings.name!r} is unknown{hint}; choose one of {', '.join(registry)}")
    return registry[settings.name](own_settings(settings), setup)


@dataclass(frozen=True, kw_only=True)
class Features:
    """What the head reads, `(B, F)` or for R voters `(B, R, F)`, and what the policy looked at on the way."""

    action: Tensor
    tube: Tube
    attention: dict[str, Tensor]


class VLAPolicy(nn.Module):
    """The whole network.

    Args:
        config: its structure.
        shapes: sizes that the data give.
        saved: folder of the checkpoint whose weights will be loaded next; pretrained parts are then built from what
            they described there, in place of reading the models they once came from.
    """

    def __init__(self, config: PolicyConfig, shapes: Shapes, saved: Path | None = None) -> None:
        super().__init__()
        self.config, self.shapes = config, shapes
        width, attention_heads = config.width, config.attention_heads
        self.normaliser = Normaliser(shapes.proprioception)
        self.encoder = _built(
            "encoder",
            config.encoder,
            ENCODERS,
            EncoderSetup(
                backbone=config.encoder.backbone,
                shapes=shapes,
                width=width,
                attention_heads=attention_heads,
                saved=saved,
            ),
        )
        self.language = _built(
            "language",
            config.language,
            LANGUAGES,
            LanguageSetup(
                vocabulary=shapes.vocabulary,
                max_words=config.language.max_words,
                width=width,
                attention_heads=attention_heads,
                saved=saved,
            ),
        )
        self.fusion = _built(
            "fusion",
            config.fusion,
            FUSIONS,
            FusionSetup(
                width=width,
                attention_heads=attention_heads,
                frame_width=self.encoder.frame_width,
                channels=self.encoder.backbone.channels,
                stages=self.encoder.backbone.stages,
            ),
        )
        pooled = self.fusion.pooled_width
        self.grounding = SpaceTimeDecoder(
            config.grounding, width, attention_heads, self.encoder.frame_width, pooled, self.encoder.looks
        )
        path = path_width(self.encoder.looks, visible=config.grounding.visibility_weight > 0)
        told = int(self.grounding.when is not None)
        grounded = width + path + told if config.grounding.feeds == "queries" else 0
        head_setup = HeadSetup(
            chunk=config.head.chunk,
            hidden=config.head.hidden,
            features=grounded + pooled + shapes.proprioception,
            actions=shapes.actions,
        )

        def make_head() -> ActionHead:
            return _built("head", config.head, HEADS, head_setup)

        voters = self.fusion.voters
        self.head = make_head() if voters is None else VotingHead(config.fusion.vote.rule, voters, make_head)

    def forward(self, observation: Observation) -> Features:
        self._check(observation)
        frames, agent_pos = observation.frames, self.normaliser(observation.agent_pos[:, -1])
        if self.training:
            frames, agent_pos = self._drop(frames, agent_pos)
        dialogue = self.fusion.dialogue(self.language, self.language.embed(observation.tokens, observation.token_mask))
        vision = self.encoder(frames, dialogue)
        fused = self.fusion(vision, dialogue.words())
        tube = self.grounding(vision, fused)
        grounded = self._grounded(tube) if self.config.grounding.feeds == "queries" else []
        views = [*grounded, fused.pooled, agent_pos]
        if fused.voters is not None:
            voters = fused.voters.shape[1]
            views = [view[:, None].expand(-1, voters, -1) for view in views]
            views[-2] = fused.voters
        seen = torch.cat([view.float() for view in views], dim=-1)
        attention = {**dialogue.attention, **vision.attention, **fused.attention, **tube.attention}
        return Features(action=seen, tube=tube, attention=attention)

    def _grounded(self, tube: Tube) -> list[Tensor]:
        """What the action head reads of the tube. Whether the target is visible, and whether it is time to act, is
        learned from their labels alone.
        """
        visible = None if tube.visible is None else tube.visible.sigmoid().detach()
        now = [] if tube.when is None else [tube.when.during[:, -1:].sigmoid().detach()]
        return [tube.queries[:, -1], path_features(tube.boxes, visible), *now]

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The training loss and, detached, its parts."""
        features = self(batch.observation)
        action = self.head.loss(features.action, batch.action, batch.action_mask)
        looked_at = features.tube.boxes.shape[1]  # the newest ones
        boxes, visible, event = (x[:, -looked_at:] for x in (batch.boxes, batch.visible, batch.event))
        grounding, metrics = grounding_loss(self.config.grounding, features.tube, boxes, visible, event)
        total = self.head.loss_scale * action + grounding
        return total, {"loss": total.detach(), "action": action.detach(), **metrics}

    @torch.no_grad()
    def act(self, observation: Observation) -> ActionChunk:
        """The next S actions, with boxes and attention maps in `aux`."""
        features = self(observation)
        h, w = features.tube.grid
        location = features.tube.logits.softmax(-1).unflatten(-1, (h, w))
        when = features.tube.when
        aux = Aux(
            boxes=features.tube.boxes,
            location=location,
            attention=features.attention,
            visible=None if features.tube.visible is None else features.tube.visible.sigmoid(),
            start=None if when is None else when.start.softmax(-1),
            end=None if when is None else when.end.softmax(-1),
            during=None if when is None else when.during.sigmoid(),
        )
        return ActionChunk(action=self.head.act(features.action), aux=aux)

    def _drop(self, frames: Tensor, agent_pos: Tensor) -> tuple[Tensor, Tensor]:
        """Hide history or proprioception from some training samples, so that neither becomes a crutch."""
        b = len(frames)
        if self.config.history_dropout:
            hide = torch.rand(b, device=frames.device) < self.config.history_dropout
            frames = torch.where(hide.view(b, 1, 1, 1, 1, 1), frames[:, -1:], frames)
        if self.config.proprioception_dropout:
            keep = torch.rand(b, 1, device=frames.device) >= self.config.proprioception_dropout
            agent_pos = agent_pos * keep
        return frames, agent_pos

    def _check(self, observation: Observation) -> None:
        s, batch, words = self.shapes, observation.frames.shape[0], observation.tokens.shape[-1]
        expected = {
            "frames": ((batch, s.frames, s.cameras, 3, s.size, s.size), torch.uint8),
            "agent_pos": ((batch, s.frames, s.proprioception), torch.float32),
            "tokens": ((batch, words), torch.int64),
            "token_mask": ((batch, words), torch.bool),
        }
        for name, (shape, dtype) in expected.items():
            value: Tensor = getattr(observation, name)
            if tuple(value.shape) != shape or value.dtype != dtype:
                raise ValueError(f"{name}: got {tuple(value.shape)} {value.dtype}, expected {shape} {dtype}")

    def describe(self, folder: Path) -> None:
        """Write into a checkpoint's folder what pretrained parts need to be built again; see `saved`."""
        for part in self.modules():
            if part is not self and isinstance(part, Described):
                part.describe(folder)
