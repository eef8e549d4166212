"""Configuration of the vision encoder: what all share, and one dataclass for each encoder with settings of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs.checks import check_kinds, check_least, check_shares, refuse_changed, refuse_unused

EncoderName = Literal[
    "single_frame", "frame_lstm", "frame_transformer", "conv3d", "space_time_attention", "slow_fast", "two_stream"
]
TEXT_ENCODERS = ("slow_fast",)  # vision encoders that read the text tokens themselves
SMALL = "small"


@dataclass(frozen=True, kw_only=True)
class TimmConfig:
    """A timm model as the stem of the backbone.

    Args:
        stride: pixels that a cell of the feature maps should span; the nearest coarser level is taken.
        weights: "" starts at random, "hub" asks the hub or its cache, anything else is a safetensors file.
        frozen: whether the model stays as it is.
        frozen_norm: whether its batch norms do: statistics, scale and shift. They are then affine layers, which do not
            depend on the batch.
        frozen_parts: parts that stay as they are, by the beginning of their names, such as conv1 and layer1.
    """

    stride: int = 4
    weights: str = ""
    frozen: bool = False
    frozen_norm: bool = False
    frozen_parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_kinds("encoder.backbone.timm", self)
        check_least("encoder.backbone.timm", self, stride=1)


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """The spatial backbone, which encodes every frame on its own.

    Args:
        name: "small" is trained from scratch; any other name is a timm model, such as resnet18.
        channels: width of its feature maps; with 0, and no layers, those of a timm model as they are.
        layers: residual convolutions that it ends in, behind its stem or behind a timm model.
        timm: settings of a timm model.
    """

    name: str = SMALL
    channels: int = 32
    layers: int = 2
    timm: TimmConfig = field(default_factory=TimmConfig)

    def __post_init__(self) -> None:
        check_kinds("encoder.backbone", self)
        check_least("encoder.backbone", self, channels=0, layers=0)
        if (self.channels == 0) != (self.layers == 0) or (self.name == SMALL and self.layers == 0):
            name = "layers" if self.layers == 0 else "channels"
            raise ValueError(
                f"encoder.backbone.{name} 0 must be at least 1; of a timm model, channels and layers may both be 0, "
                "which takes its features as they are"
            )
        if self.name == SMALL:
            refuse_changed(
                "encoder.backbone.timm", self.timm, "an encoder.backbone.name of timm", f"that is {self.name!r}"
            )


@dataclass(frozen=True, kw_only=True)
class TwoStreamConfig:
    """Spatial and temporal stream.

    Args:
        temporal_channels: width to which each frame is reduced for the temporal stream.
        streams: how the two streams are fused.
    """

    temporal_channels: int = 12
    streams: Literal["concat", "sum", "gated", "cross_attention"] = "concat"

    def __post_init__(self) -> None:
        check_kinds("encoder.two_stream", self)
        check_least("encoder.two_stream", self, temporal_channels=1)


@dataclass(frozen=True, kw_only=True)
class FrameLSTMConfig:
    """A long short-term memory over time at every place.

    Args:
        layers: stacked memories.
    """

    layers: int = 2

    def __post_init__(self) -> None:
        check_kinds("encoder.frame_lstm", self)
        check_least("encoder.frame_lstm", self, layers=1)


@dataclass(frozen=True, kw_only=True)
class FrameTransformerConfig:
    """A causal transformer over time at every place.

    Args:
        layers: transformer layers.
    """

    layers: int = 2

    def __post_init__(self) -> None:
        check_kinds("encoder.frame_transformer", self)
        check_least("encoder.frame_transformer", self, layers=1)


@dataclass(frozen=True, kw_only=True)
class Conv3dConfig:
    """Convolutions over time and space together.

    Args:
        layers: convolutions after the first one.
        kernel: extent of the kernel in frames and in cells.
    """

    layers: int = 2
    kernel: tuple[int, int] = (3, 3)

    def __post_init__(self) -> None:
        check_kinds("encoder.conv3d", self)
        check_least("encoder.conv3d", self, layers=1)
        if min(self.kernel) < 1 or self.kernel[1] % 2 == 0:
            raise ValueError(f"encoder.conv3d.kernel {self.kernel} must be positive, the second number odd")


@dataclass(frozen=True, kw_only=True)
class SpaceTimeAttentionConfig:
    """Attention over the tokens of all frames.

    Args:
        layers: attention layers.
        attention: "joint" over space and time at once, or "divided": time, then space.
    """

    layers: int = 2
    attention: Literal["joint", "divided"] = "divided"

    def __post_init__(self) -> None:
        check_kinds("encoder.space_time_attention", self)
        check_least("encoder.space_time_attention", self, layers=1)


@dataclass(frozen=True, kw_only=True)
class SlowFastConfig:
    """TubeDETR's encoder: a slow branch that reads the text tokens, and a fast branch that sees every frame.

    Args:
        layers: layers over the places of a clip's frame and the text tokens.
        clip: frames per clip, of which the slow branch sees one.
        pick: which one; "random" is for training, and takes the centre otherwise.
        stride: how much coarser than the backbone the slow branch is.
        fast: how the fast branch is made and added: "linear" as in the paper, "none", "gated", "transformer" over the
            frames of a place, "published_transformer" in the form of the published code, "pooled" over the places of a
            frame, or "noslow": the fast branch alone.
        fast_gradient: whether the fast branch trains the backbone; in the paper the clips' frames alone do, which also
            costs less. False needs fusion.name "none".
        norm: layer norm before each part of a slow layer, or after it as in the paper.
        positions: what tells places apart: learned from their encoding, and added "once" to what is encoded; or the
            encodings themselves, added to queries and keys in "each_layer" as in the paper.
        last_norm: whether the slow layers end in a layer norm; the paper's do not.
        feed_ratio: hidden width of the feed-forward parts, as a multiple of the tokens'; in the paper 8.
        dropout: probability with which the slow layers drop attention and features in training; in the paper 0.1.
    """

    layers: int = 2
    clip: int = 3
    pick: Literal["centre", "first", "random"] = "centre"
    stride: int = 2
    fast: Literal["linear", "none", "gated", "transformer", "published_transformer", "pooled", "noslow"] = "linear"
    fast_gradient: bool = True
    norm: Literal["pre", "post"] = "pre"
    positions: Literal["once", "each_layer"] = "once"
    last_norm: bool = True
    feed_ratio: float = 2.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_kinds("encoder.slow_fast", self)
        check_least("encoder.slow_fast", self, layers=1, clip=1, stride=1)
        check_shares("encoder.slow_fast", self, "dropout")
        if self.feed_ratio <= 0:
            raise ValueError(f"encoder.slow_fast.feed_ratio {self.feed_ratio} must be above 0")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Vision: a backbone on every frame, then an encoder that joins the frames to the current tokens.

    Args:
        name: the encoder; "single_frame" is a control that sees the newest frame alone, and has no settings.
        backbone: what encodes every frame.

    The other fields are the settings of the encoder of that name.
    """

    name: EncoderName = "two_stream"
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    two_stream: TwoStreamConfig = field(default_factory=TwoStreamConfig)
    frame_lstm: FrameLSTMConfig = field(default_factory=FrameLSTMConfig)
    frame_transformer: FrameTransformerConfig = field(default_factory=FrameTransformerConfig)
    conv3d: Conv3dConfig = field(default_factory=Conv3dConfig)
    space_time_attention: SpaceTimeAttentionConfig = field(default_factory=SpaceTimeAttentionConfig)
    slow_fast: SlowFastConfig = field(default_factory=SlowFastConfig)

    def __post_init__(self) -> None:
        check_kinds("encoder", self)
        refuse_unused("encoder", self)
