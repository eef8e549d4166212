"""Configuration of the policy. Frozen; sizes that depend on data are arguments of the policy, not fields here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

EncoderName = Literal["two_stream"]
LanguageName = Literal["transformer", "pretrained"]
FusionName = Literal["bidirectional"]
HeadName = Literal["chunk_l1"]


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Vision.

    Args:
        name: the encoder.
        channels: width of the spatial backbone.
        layers: residual convolutions of the spatial backbone.
        temporal_channels: width to which each frame is reduced for the temporal stream.
    """

    name: EncoderName = "two_stream"
    channels: int = 32
    layers: int = 2
    temporal_channels: int = 12


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """Words.

    Args:
        name: "transformer" is trained from scratch; "pretrained" loads a `transformers` text model.
        layers: layers of the in-process transformer.
        pretrained: local folder or hub name of the text model, for "pretrained".
        frozen: whether the pretrained model stays as it is; its output is then cached per instruction.
        max_words: longer instructions are cut.
    """

    name: LanguageName = "transformer"
    layers: int = 1
    pretrained: str = ""
    frozen: bool = True
    max_words: int = 20

    def __post_init__(self) -> None:
        if self.name == "pretrained" and not self.pretrained:
            raise ValueError("language.name 'pretrained' needs language.pretrained, a local folder or a hub name")


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """Exchange between vision and language.

    Args:
        name: the fusion.
        layers: stacked exchanges.
    """

    name: FusionName = "bidirectional"
    layers: int = 2


@dataclass(frozen=True, kw_only=True)
class GroundingConfig:
    """The decoder that points at the target in every frame.

    Args:
        layers: decoder blocks.
        location_weight: weight of the cross-entropy of the location map.
        box_weight: weight of L1 + GIoU of the boxes.
    """

    layers: int = 1
    location_weight: float = 1.0
    box_weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Actions.

    Args:
        name: the head.
        chunk: control steps predicted at once.
        hidden: width of its hidden layers.
    """

    name: HeadName = "chunk_l1"
    chunk: int = 4
    hidden: int = 256


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """The whole policy.

    Args:
        width: token width D.
        heads: attention heads M.
        frames: frames T the policy sees.
        frame_stride: control steps between two of them.
        cameras: cameras it sees; the boxes are those of the first.
        proprioception_dropout: probability of hiding proprioception from a training sample.
        history_dropout: probability of hiding all frames but the newest (it is repeated) from a training sample.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    grounding: GroundingConfig = field(default_factory=GroundingConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    width: int = 64
    heads: int = 4
    frames: int = 6
    frame_stride: int = 4
    cameras: tuple[str, ...] = ("front",)
    proprioception_dropout: float = 0.0
    history_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width {self.width} must be a multiple of 4 and of heads {self.heads}")
        for name in ("frames", "frame_stride", "width", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        for name in ("proprioception_dropout", "history_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must lie in [0, 1)")
        if not self.cameras:
            raise ValueError("cameras is empty; name at least one, for example front")
