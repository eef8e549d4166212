"""The policy: vision and language encoder → fusion → grounding decoder → action head.

Three methods: `loss(batch)`, `act(observation)`, and `forward`, which both share. Frame history, chunk execution and
ensembling are in `vla_policy.runner`. Nothing here depends on a simulator.

B batch, T frames, V cameras, L text tokens, P proprioception, S chunk steps, A actions, D width.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from configs.checks import own_settings
from configs.policy import PolicyConfig
from vla_policy.contract import ActionChunk, Aux, Batch, Described, Observation, Shapes
from vla_policy.decision import ActionHead, HeadSetup, VotingHead
from vla_policy.encoders import ENCODERS
from vla_policy.exchange import FusionSetup, LanguageSetup
from vla_policy.fusion import FUSIONS
from vla_policy.grounding.boxes import box_steps
from vla_policy.grounding.decoder import GroundingOutput, SpaceTimeDecoder
from vla_policy.grounding.losses import grounding_loss, only
from vla_policy.heads import HEADS
from vla_policy.language import LANGUAGES
from vla_policy.layers import at_least_float32, octaves
from vla_policy.normaliser import Normaliser
from vla_policy.tokens import Padding
from vla_policy.vision import EncoderSetup

Setup = TypeVar("Setup")
Part = TypeVar("Part")
PATH_SCALE = 8.0  # brings boxes to unit scale: the objects' paths span about a quarter of the picture


def path_features(boxes: Tensor, visible: Tensor | None = None, step_scale: Sequence[float] | None = None) -> Tensor:
    """The target's path for the action head, `(B, T, 4)` → `(B, 4T)`: the newest box, centred, and the steps between
    the boxes, scaled up. Given positions alone, the head needed three times the samples to find velocities.

    With the probability `(B, T)` that the target is visible → `(B, 9T - 4)`: these probabilities, and all boxes and
    steps, each multiplied by the probability that it is of a visible target. The newest box may only be a guess.

    `step_scale`: of the T - 1 steps, for frames that are not evenly apart.
    """
    places, steps = PATH_SCALE * (boxes - 0.5), box_steps(boxes, step_scale)
    if visible is None:
        return torch.cat([places[:, -1], steps.flatten(1)], dim=-1)
    trust = visible[..., None]
    reliable = places * trust, steps * trust[:, 1:] * trust[:, :-1]
    return torch.cat([visible, *(part.flatten(1) for part in reliable)], dim=-1)


def path_width(frames: int, *, visible: bool) -> int:
    """Numbers that `path_features` makes of so many frames."""
    return 9 * frames - 4 if visible else 4 * frames


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
    """The action head's input, `(B, F)` or for R voters `(B, R, F)`, the grounding, and the attention maps by name."""

    action: Tensor
    grounding: GroundingOutput
    attention: dict[str, Tensor]


class VLAPolicy(nn.Module):
    """The whole network.

    It computes in the type of its parameters: `policy.bfloat16()`, `.half()` and `.double()` all work. What it predicts
    is float32, or float64 if that is what its parameters are.

    Args:
        config: its structure.
        shapes: sizes that the data give.
        saved: folder of the checkpoint whose weights will be loaded next. Pretrained parts are then built from their
            descriptions there, and the models that they came from are not read.
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
        scale, steps = config.step_scale, self.encoder.grounded_frames - 1
        self._step_scale = None if scale is None else scale[len(scale) - steps :]
        self.grounding = SpaceTimeDecoder(
            config.grounding,
            width,
            attention_heads,
            self.encoder.frame_width,
            pooled,
            self.encoder.grounded_frames,
            shapes.cameras,
            self._step_scale,
        )
        tubes = self.grounding.tubes
        path = path_width(self.encoder.grounded_frames, visible=config.grounding.visibility_weight > 0)
        event = int(self.grounding.tells_during)
        finer = 1 + 2 * config.head.octaves  # what is told of places: themselves, sines and cosines
        grounded = tubes * (width + finer * path) + event if config.grounding.feeds == "queries" else 0
        head_setup = HeadSetup(
            chunk=config.head.chunk,
            hidden=config.head.hidden,
            features=grounded + pooled + finer * shapes.proprioception,
            actions=shapes.actions,
            blocks=config.head.blocks,
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
        exchange = self.fusion.exchange(self.language, self.language.embed(observation.tokens, observation.token_mask))
        masks = observation.frame_mask, observation.pixel_mask
        padded = any(mask is not None for mask in masks)
        more = {"padding": Padding(frames=masks[0], pixels=masks[1])} if padded else {}
        vision = self.encoder(frames, exchange, **more)
        fused = self.fusion(vision, exchange.encoded_text())
        grounding = self.grounding(vision, fused)
        grounded = self._grounded(grounding) if self.config.grounding.feeds == "queries" else []
        views = [*grounded, fused.pooled, self._finer(agent_pos)]
        if fused.voters is not None:
            voters = fused.voters.shape[1]
            views = [view[:, None].expand(-1, voters, -1) for view in views]
            views[-2] = fused.voters
        features = torch.cat([view.to(self.encoder.camera.dtype) for view in views], dim=-1)
        attention = {**exchange.attention, **vision.attention, **fused.attention, **grounding.attention}
        return Features(action=features, grounding=grounding, attention=attention)

    def _grounded(self, output: GroundingOutput) -> list[Tensor]:
        """What the action head gets from the grounding. Whether the target is visible, and whether the event holds now,
        are learned from their labels alone: no gradient of the actions reaches them.
        """
        visible = None if output.tube_visible is None else output.tube_visible.sigmoid().detach()
        during = None if output.event is None else output.event.during
        now = [] if during is None else [during[:, -1:].sigmoid().detach()]
        boxes = output.tubes.unbind(2)
        seen = [None] * len(boxes) if visible is None else list(visible.unbind(2))
        paths = [self._finer(path_features(*each, self._step_scale)) for each in zip(boxes, seen, strict=True)]
        return [output.tube_queries[:, -1].flatten(1), *paths, *now]

    def _finer(self, places: Tensor) -> Tensor:
        """Places, and what makes small differences between them large."""
        count = self.config.head.octaves
        return torch.cat([places, octaves(places, count)], dim=-1) if count else places

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The training loss and, detached, its parts."""
        features = self(batch.observation)
        # In full precision, which costs little here: in bfloat16 a place is known to half a percent of the picture.
        with torch.autocast(features.action.device.type, enabled=False):
            action = self.head.loss(features.action, batch.action, batch.action_mask)
        grounded = features.grounding.tubes.shape[1]  # the newest frames
        boxes, visible, event = (x[:, -grounded:] for x in (*batch.tubes, batch.event))
        mask = batch.observation.frame_mask
        grounding, metrics = grounding_loss(self.config.grounding, features.grounding, boxes, visible, event, mask)
        total = self.head.loss_scale * action + grounding
        return total, {"loss": total.detach(), "action": action.detach(), **metrics}

    @torch.no_grad()
    def act(self, observation: Observation) -> ActionChunk:
        """The next S actions, with boxes and attention maps in `aux`."""
        features = self(observation)
        output, event, mask = features.grounding, features.grounding.event, observation.frame_mask
        aux = Aux(
            boxes=output.boxes,
            tubes=output.tubes,
            location=None if output.logits is None else output.logits.softmax(-1).unflatten(-1, output.grid),
            attention={name: at_least_float32(weights) for name, weights in features.attention.items()},
            visible=None if output.visible is None else output.visible.sigmoid(),
            start_logits=None if event is None else only(event.start, mask),
            end_logits=None if event is None else only(event.end, mask),
            during=None if event is None or event.during is None else event.during.sigmoid(),
        )
        return ActionChunk(action=self.head.act(features.action), aux=aux)

    def _drop(self, frames: Tensor, agent_pos: Tensor) -> tuple[Tensor, Tensor]:
        """Hide history or proprioception from some training samples, so that the policy depends on neither alone."""
        b = frames.shape[0]
        if self.config.history_dropout:
            hide = torch.rand(b, device=frames.device) < self.config.history_dropout
            frames = torch.where(hide.view(b, 1, 1, 1, 1, 1), frames[:, -1:], frames)
        if self.config.proprioception_dropout:
            keep = torch.rand(b, 1, device=frames.device) >= self.config.proprioception_dropout
            agent_pos = agent_pos * keep
        return frames, agent_pos

    def _check(self, observation: Observation) -> None:
        s, seen, channels = self.shapes, observation.frames, self.encoder.backbone.channels
        batch, length, frames = seen.shape[0], observation.tokens.shape[-1], s.frames
        if self.config.grounds_videos:
            frames = min(max(seen.shape[1], 1), frames)
        picture, kind = (3, s.size, s.size), torch.uint8
        if seen.is_floating_point() and seen.shape[3:4] == (channels,):  # what the encoder's `look` made of them
            picture, kind = (channels, *seen.shape[4:]), self.encoder.camera.dtype
        expected = {
            "frames": ((batch, frames, s.cameras, *picture), kind),
            "agent_pos": ((batch, frames, s.proprioception), torch.float32),
            "tokens": ((batch, length), torch.int64),
            "token_mask": ((batch, length), torch.bool),
            "frame_mask": ((batch, frames), torch.bool),
            "pixel_mask": ((batch, s.size, s.size), torch.bool),
        }
        for name, (shape, dtype) in expected.items():
            value: Tensor | None = getattr(observation, name)
            if value is None and name.endswith("_mask") and name != "token_mask":
                continue
            assert value is not None
            if name in ("frame_mask", "pixel_mask") and not self.config.grounds_videos:
                raise ValueError(
                    f"{name}: got {tuple(value.shape)}, expected none: padding is for policies that do nothing but "
                    "ground (encoder.name 'slow_fast', fusion.name 'none', head.name 'none', no grounding.extras)"
                )
            if tuple(value.shape) != shape or value.dtype != dtype:
                raise ValueError(f"{name}: got {tuple(value.shape)} {value.dtype}, expected {shape} {dtype}")

    def describe(self, folder: Path) -> None:
        """Write into a checkpoint's folder what pretrained parts need to be built again; see `saved`."""
        for part in self.modules():
            if part is not self and isinstance(part, Described):
                part.describe(folder)
