"""Configuration of the policy. Frozen; sizes that depend on data are arguments of the policy, not fields here.

Each part has a file of its own. A part that comes in variants has a field `name`; settings of one variant are a section
that is called like it, as in `policy.fusion.vote.rule`. Settings of variants that are not chosen are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from configs.checks import check_kinds, check_least
from configs.encoder import (
    TEXT_ENCODERS,
    BackboneConfig,
    Conv3dConfig,
    EncoderConfig,
    FrameLSTMConfig,
    FrameTransformerConfig,
    SlowFastConfig,
    SpaceTimeAttentionConfig,
    TimmConfig,
    TwoStreamConfig,
)
from configs.fusion import (
    BidirectionalConfig,
    CrossAttentionConfig,
    FusionConfig,
    IntermediateConfig,
    SelfAttentionConfig,
    VoteConfig,
    WeightedConfig,
)
from configs.grounding import GroundingConfig
from configs.head import BinnedConfig, FlowMatchingConfig, GaussianMixtureConfig, HeadConfig
from configs.language import LanguageConfig, PretrainedTextConfig, TextTransformerConfig

__all__ = [
    "TEXT_ENCODERS",
    "BackboneConfig",
    "BidirectionalConfig",
    "BinnedConfig",
    "Conv3dConfig",
    "CrossAttentionConfig",
    "EncoderConfig",
    "FlowMatchingConfig",
    "FrameLSTMConfig",
    "FrameTransformerConfig",
    "FusionConfig",
    "GaussianMixtureConfig",
    "GroundingConfig",
    "HeadConfig",
    "IntermediateConfig",
    "LanguageConfig",
    "PolicyConfig",
    "PretrainedTextConfig",
    "SelfAttentionConfig",
    "SlowFastConfig",
    "SpaceTimeAttentionConfig",
    "TextTransformerConfig",
    "TimmConfig",
    "TwoStreamConfig",
    "VoteConfig",
    "WeightedConfig",
]


FURTHEST = 100_000  # control steps: longer than any episode, so that a slip is found before memory is asked for


def evenly_apart(ages: Sequence[int]) -> bool:
    """Whether frames of these ages are all as far from their neighbours."""
    return len({old - new for old, new in pairwise(ages)}) <= 1


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """The whole policy.

    Args:
        width: token width D.
        attention_heads: attention heads M.
        frames: frames T the policy sees.
        frame_stride: control steps between two of them.
        frame_ages: instead, how many control steps before now each frame was seen, oldest first, the last 0: such as
            few old ones and several new ones, since things that turn look as things that stop do, in two frames alone.
            What a box moved between two frames is then scaled to `frame_stride` steps. Everything else counts frames.
        cameras: cameras it sees; the boxes that are shown and judged are those of the first.
        proprioception_dropout: probability of hiding proprioception from a training sample.
        history_dropout: probability of hiding all frames but the newest (it is repeated) from a training sample.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    grounding: GroundingConfig = field(default_factory=GroundingConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    width: int = 64
    attention_heads: int = 4
    frames: int = 6
    frame_stride: int = 4
    frame_ages: tuple[int, ...] = ()
    cameras: tuple[str, ...] = ("front",)
    proprioception_dropout: float = 0.0
    history_dropout: float = 0.0

    def __post_init__(self) -> None:
        check_kinds("", self)
        check_least("", self, width=1, attention_heads=1, frames=1, frame_stride=1)
        ages = self.frame_ages
        if ages and (len(ages) != self.frames or ages[-1] != 0 or any(a <= b for a, b in pairwise(ages))):
            raise ValueError(
                f"frame_ages {list(ages)} must be {self.frames} numbers, one for each of frames, each smaller than the "
                "one before, the last 0"
            )
        if self.oldest > FURTHEST:
            name = "frame_ages reach" if ages else f"frames {self.frames} of frame_stride {self.frame_stride} reach"
            raise ValueError(f"{name} {self.oldest} control steps back, at most {FURTHEST} are allowed")
        if self.width % self.attention_heads or self.width % 4:
            raise ValueError(
                f"width {self.width} must be a multiple of 4 and of attention_heads {self.attention_heads}"
            )
        for name in ("proprioception_dropout", "history_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must lie in [0, 1)")
        if self.fusion.name == "none" and self.encoder.name not in TEXT_ENCODERS:
            raise ValueError(
                f"fusion.name 'none' needs an encoder that reads the text tokens itself ({', '.join(TEXT_ENCODERS)}); "
                f"encoder.name is {self.encoder.name!r}"
            )
        if not self.encoder.slow_fast.fast_gradient and self.fusion.name != "none":
            raise ValueError(
                "encoder.slow_fast.fast_gradient false encodes the clips' frames twice, and needs fusion.name 'none'; "
                f"it is {self.fusion.name!r}"
            )
        if self.grounds_videos:
            self._check_padding()
        if not self.cameras:
            raise ValueError("cameras is empty; name at least one, for example front")
        if len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"cameras {list(self.cameras)} must name each camera once")

    def _check_padding(self) -> None:
        """Refuse what would let the padding of short videos change what is said of their own frames."""
        if not self.even:
            raise ValueError("frame_ages: a policy that only grounds reads videos evenly; set frame_stride instead")
        if self.grounding.positions == "once":
            raise ValueError(
                "grounding.positions 'once' counts times back from the newest frame, which may be padding in a policy "
                "that only grounds; set each_layer, or grounding.extras true"
            )
        if self.encoder.name == "slow_fast" and self.encoder.slow_fast.fast == "transformer":
            raise ValueError(
                "encoder.slow_fast.fast 'transformer' attends to padded frames, which a policy that only grounds has; "
                "take published_transformer"
            )

    @property
    def ages(self) -> tuple[int, ...]:
        """How many control steps before now each frame was seen, oldest first, (T,)."""
        return self.frame_ages or tuple(i * self.frame_stride for i in reversed(range(self.frames)))

    @property
    def oldest(self) -> int:
        """How many control steps before now the oldest frame was seen."""
        return self.frame_ages[0] if self.frame_ages else (self.frames - 1) * self.frame_stride

    @property
    def even(self) -> bool:
        """Whether all neighbouring frames are as far apart."""
        return evenly_apart(self.ages)

    @property
    def stride(self) -> int:
        """Control steps between the two newest frames."""
        return self.frame_ages[-2] if len(self.frame_ages) > 1 else self.frame_stride

    @property
    def step_scale(self) -> tuple[float, ...] | None:
        """What brings a box's step between two frames to the size that it would have in `frame_stride` control steps,
        (T - 1,); None where all steps are as long.
        """
        return None if self.even else tuple(self.frame_stride / (a - b) for a, b in pairwise(self.frame_ages))

    @property
    def grounds_videos(self) -> bool:
        """Whether the policy does nothing but ground, as TubeDETR does, and takes nothing from the newest frame. Its
        videos may then be shorter than `frames`, and of several lengths in a batch.
        """
        alone = self.fusion.name == "none" and self.head.name == "none"
        return alone and self.encoder.name in TEXT_ENCODERS and not self.grounding.extras

    @property
    def tubes(self) -> tuple[tuple[str, str], ...]:
        """The K tubes of boxes that the decoder finds, each as (camera, thing); the first is the target's in the first
        camera.
        """
        cameras = self.cameras if self.grounding.cameras == "all" else self.cameras[:1]
        return tuple((camera, thing) for camera in cameras for thing in self.grounding.things)
