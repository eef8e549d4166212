"""Configuration of the policy. Frozen; sizes that depend on data are arguments of the policy, not fields here."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

EncoderName = Literal[
    "single_frame", "frame_lstm", "frame_transformer", "conv3d", "space_time_attention", "slow_fast", "two_stream"
]
LanguageName = Literal["transformer", "bag_of_words", "pretrained"]
FusionName = Literal[
    "bidirectional", "cross_attention", "self_attention", "intermediate", "concat", "weighted", "vote", "none"
]
READERS = ("slow_fast",)  # encoders that read the words themselves
HeadName = Literal["chunk_l1", "gaussian_mixture", "binned", "flow_matching"]
# Of fields that came later: what a policy that does not mention them was, where that is not today's default.
UNMENTIONED: dict[str, dict[str, Any]] = {"fusion": {"during": "none"}}
MAJORITY = 3  # voters: among fewer there is none


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Vision: a backbone on every frame, then what makes one moment of them.

    Args:
        name: the encoder; "single_frame" is a control that sees the newest frame alone.
        channels: width of the spatial backbone.
        layers: residual convolutions that the backbone ends in, behind its stem or behind a timm model.
        backbone: "small" is trained from scratch; any other name is a timm model, such as resnet18.
        stride: for timm: pixels a cell of the feature maps should span; the nearest coarser level is taken.
        weights: for timm: "" starts at random, "hub" asks the hub or its cache, else a safetensors file.
        frozen: whether the timm model stays as it is.
        temporal_channels: "two_stream": width to which each frame is reduced for the temporal stream.
        streams: "two_stream": how the two streams are fused.
        attention: "space_time_attention": "joint" over space and time at once, or "divided": time, then space.
        temporal_layers: layers over time of "frame_lstm", "frame_transformer", "conv3d" and "space_time_attention"; of
            "slow_fast", layers over the places of a clip's frame and the words.
        kernel: "conv3d": extent of the kernel in frames and in cells.
        clip: "slow_fast": frames a clip, of which the slow branch sees one.
        pick: "slow_fast": which one; "random" is for training, and takes the centre otherwise.
        slow_stride: "slow_fast": how much coarser than the backbone the slow branch is.
        fast: "slow_fast": how the fast branch is made and added: "linear" as in the paper, "none", "gated",
            "transformer" over the frames of a place, or "pooled" over the places of a frame.
    """

    name: EncoderName = "two_stream"
    channels: int = 32
    layers: int = 2
    backbone: str = "small"
    stride: int = 4
    weights: str = ""
    frozen: bool = False
    temporal_channels: int = 12
    streams: Literal["concat", "sum", "gated", "cross_attention"] = "concat"
    attention: Literal["joint", "divided"] = "divided"
    temporal_layers: int = 2
    kernel: tuple[int, int] = (3, 3)
    clip: int = 3
    pick: Literal["centre", "first", "random"] = "centre"
    slow_stride: int = 2
    fast: Literal["linear", "none", "gated", "transformer", "pooled"] = "linear"

    def __post_init__(self) -> None:
        for name in ("channels", "layers", "stride", "temporal_channels", "temporal_layers", "clip", "slow_stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"encoder.{name} {getattr(self, name)} must be at least 1")
        if min(self.kernel) < 1 or self.kernel[1] % 2 == 0:
            raise ValueError(f"encoder.kernel {self.kernel} must be positive, the second number odd")
        if self.backbone == "small" and (self.weights or self.frozen):
            raise ValueError("encoder.weights and encoder.frozen are for timm models; encoder.backbone is 'small'")


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """Words.

    Args:
        name: "transformer" is trained from scratch; "bag_of_words" is a control that knows no word order; "pretrained"
            loads a `transformers` text model.
        layers: layers of the in-process transformer. Fusions that exchange between the encoders' layers spread them
            over the stages of the backbone. With one layer all exchanges come before it, with "bag_of_words" there is
            none after them, and a "pretrained" model has been read whole before the first.
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
        for name in ("layers", "max_words"):
            if getattr(self, name) < 1:
                raise ValueError(f"language.{name} {getattr(self, name)} must be at least 1")
        if self.name == "pretrained" and not self.pretrained:
            raise ValueError("language.name 'pretrained' needs language.pretrained, a local folder or a hub name")


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """Exchange between vision and language.

    Args:
        name: the fusion. "bidirectional", "cross_attention" and "self_attention" come after both encoders and join them
            by attention, "bidirectional" also between their layers (`during`); "intermediate" exchanges features
            between the encoders' layers alone; "concat", "weighted" and "vote" join what the encoders end in; "none"
            leaves it to an encoder that reads the words itself.
        layers: stacked exchanges of the attention fusions.
        during: "bidirectional": after which layers of the backbone both directions read each other as well.
        output: attention fusions: how the two pooled sides are joined.
        direction: "cross_attention": who reads whom.
        interaction: "intermediate": what is exchanged.
        position: "intermediate": after which layers of the backbone.
        weights: "weighted": 0.5 each, a learned number a side, a learned vector a side, or a softmax over the input.
        rule: "vote": the most voters, the most trusted voters, or the mean.
        voters: "vote": what each voter looks at.
    """

    name: FusionName = "bidirectional"
    layers: int = 2
    during: Literal["none", "early", "middle", "multi"] = "middle"
    output: Literal["concat", "sum"] = "concat"
    direction: Literal["language_reads_vision", "vision_reads_language"] = "language_reads_vision"
    interaction: Literal["hadamard", "matrix", "attention", "concat_mlp", "bidirectional"] = "bidirectional"
    position: Literal["early", "middle", "multi"] = "multi"
    weights: Literal["fixed", "scalar", "vector", "attention"] = "scalar"
    rule: Literal["majority", "weighted", "soft"] = "soft"
    voters: tuple[Literal["spatial", "temporal", "language"], ...] = ("spatial", "temporal", "language")

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ValueError(f"fusion.layers {self.layers} must be at least 1")
        if len(set(self.voters)) != len(self.voters) or not self.voters:
            raise ValueError(f"fusion.voters {list(self.voters)} must name one or more different voters")
        if self.name == "vote" and self.rule == "majority" and len(self.voters) < MAJORITY:
            raise ValueError(
                f"fusion.voters {list(self.voters)}: a majority needs at least {MAJORITY} voters; "
                "choose fusion.rule soft or weighted"
            )


@dataclass(frozen=True, kw_only=True)
class GroundingConfig:
    """The decoder that points at the target in every frame and says when the event of the words begins and ends.

    Args:
        layers: decoder blocks.
        norm: layer norm before each part of a block, or after it as in the paper.
        location_weight: weight of the cross-entropy of the location map.
        box_weight: weight of the boxes' loss, in which L1 (a mean over the four numbers) counts `l1_weight` and GIoU
            `giou_weight`.
        interval_weight: weight of start, end and, times `event_weight`, of whether frames are part of the event; with 0
            the decoder has no such heads.
        visibility_weight: weight of whether the target is visible, in all frames; with 0 the decoder does not tell.
            Where it does, an action head that reads the queries knows which boxes it can rely on.
        sigma: standard deviation, in frames, of the Gaussian around the true start and end.
        attention_weight: weight of the guided attention: queries within the event should not look outside it.
        scope: boxes are learned within the event, as in the paper, or wherever the target is "visible".
        feeds: what the action head reads: the decoder's query and boxes beside the fusion's pooled tokens, or the
            pooled tokens alone.
    """

    layers: int = 1
    norm: Literal["pre", "post"] = "pre"
    location_weight: float = 1.0
    box_weight: float = 1.0
    l1_weight: float = 5.0
    giou_weight: float = 1.0
    interval_weight: float = 0.0
    event_weight: float = 1.0
    visibility_weight: float = 0.0
    sigma: float = 1.0
    attention_weight: float = 0.0
    scope: Literal["event", "visible"] = "event"
    feeds: Literal["queries", "pooled"] = "queries"

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ValueError(f"grounding.layers {self.layers} must be at least 1")
        for item in fields(self):
            if item.name.endswith("_weight") and not getattr(self, item.name) >= 0:
                raise ValueError(f"grounding.{item.name} {getattr(self, item.name)} must be 0 or more")
        if self.sigma <= 0:
            raise ValueError(f"grounding.sigma {self.sigma} must be above 0 frames")


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Actions.

    Args:
        name: the head.
        chunk: control steps predicted at once.
        hidden: width of its hidden layers.
        components: "gaussian_mixture": Gaussians.
        bins: "binned": values an action can take.
        integration_steps: "flow_matching": steps from noise to action.
    """

    name: HeadName = "chunk_l1"
    chunk: int = 4
    hidden: int = 256
    components: int = 5
    bins: int = 41
    integration_steps: int = 5

    def __post_init__(self) -> None:
        for name, least in (("chunk", 1), ("hidden", 1), ("components", 1), ("bins", 2), ("integration_steps", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"head.{name} {getattr(self, name)} must be at least {least}")


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
        if self.fusion.name == "none" and self.encoder.name not in READERS:
            raise ValueError(
                f"fusion.name 'none' needs an encoder that reads the words itself ({', '.join(READERS)}); "
                f"encoder.name is {self.encoder.name!r}"
            )
        if not self.cameras:
            raise ValueError("cameras is empty; name at least one, for example front")
        if len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"cameras {list(self.cameras)} must name each camera once")
