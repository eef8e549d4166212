"""Configuration of the fusion of vision and language, one dataclass for each with settings of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs.checks import check_kinds, check_least, refuse_unused

FusionName = Literal[
    "bidirectional", "cross_attention", "self_attention", "intermediate", "concat", "weighted", "vote", "none"
]
MAJORITY = 3  # voters: among fewer there is none


@dataclass(frozen=True, kw_only=True)
class BidirectionalConfig:
    """Bidirectional cross-attention after both encoders, and between their layers.

    Args:
        layers: stacked exchanges after both encoders.
        during: after which layers of the backbone both directions read each other as well.
        output: how the two pooled sides are joined.
        stride: places on a side that are one token to the stacked exchanges, which are most of what a policy of large
            pictures costs. What they change is added to each of these places; at 1 every place is a token.
    """

    layers: int = 2
    during: Literal["none", "early", "middle", "multi"] = "middle"
    output: Literal["concat", "sum"] = "concat"
    stride: int = 1

    def __post_init__(self) -> None:
        check_kinds("fusion.bidirectional", self)
        check_least("fusion.bidirectional", self, layers=1, stride=1)


@dataclass(frozen=True, kw_only=True)
class CrossAttentionConfig:
    """Cross-attention in one direction, after both encoders.

    Args:
        layers: stacked layers.
        direction: who reads whom.
        output: how the two pooled sides are joined.
    """

    layers: int = 2
    direction: Literal["language_reads_vision", "vision_reads_language"] = "language_reads_vision"
    output: Literal["concat", "sum"] = "concat"

    def __post_init__(self) -> None:
        check_kinds("fusion.cross_attention", self)
        check_least("fusion.cross_attention", self, layers=1)


@dataclass(frozen=True, kw_only=True)
class SelfAttentionConfig:
    """One sequence of both sides' tokens through a transformer.

    Args:
        layers: stacked layers.
        output: how the two pooled sides are joined.
    """

    layers: int = 2
    output: Literal["concat", "sum"] = "concat"

    def __post_init__(self) -> None:
        check_kinds("fusion.self_attention", self)
        check_least("fusion.self_attention", self, layers=1)


@dataclass(frozen=True, kw_only=True)
class IntermediateConfig:
    """Exchanges between the layers of the two encoders alone.

    Args:
        interaction: what is exchanged.
        position: after which layers of the backbone.
        output: how the two pooled sides are joined.
    """

    interaction: Literal["hadamard", "matrix", "attention", "concat_mlp", "bidirectional"] = "bidirectional"
    position: Literal["early", "middle", "multi"] = "multi"
    output: Literal["concat", "sum"] = "concat"

    def __post_init__(self) -> None:
        check_kinds("fusion.intermediate", self)


@dataclass(frozen=True, kw_only=True)
class WeightedConfig:
    """A weighted sum of both sides.

    Args:
        weights: "fixed" is 0.5 each, "scalar" a learned number per side, "vector" a learned vector per side,
            "attention" a softmax over the input.
    """

    weights: Literal["fixed", "scalar", "vector", "attention"] = "scalar"

    def __post_init__(self) -> None:
        check_kinds("fusion.weighted", self)


@dataclass(frozen=True, kw_only=True)
class VoteConfig:
    """Several action heads, whose decisions are counted.

    Args:
        rule: the most voters, the most trusted voters, or the mean.
        voters: what each voter sees.
    """

    rule: Literal["majority", "weighted", "soft"] = "soft"
    voters: tuple[Literal["spatial", "temporal", "language"], ...] = ("spatial", "temporal", "language")

    def __post_init__(self) -> None:
        check_kinds("fusion.vote", self)
        if len(set(self.voters)) != len(self.voters) or not self.voters:
            raise ValueError(f"fusion.vote.voters {list(self.voters)} must name one or more different voters")
        if self.rule == "majority" and len(self.voters) < MAJORITY:
            raise ValueError(
                f"fusion.vote.voters {list(self.voters)}: a majority needs at least {MAJORITY} voters; "
                "choose fusion.vote.rule soft or weighted"
            )


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """Exchange between vision and language.

    Args:
        name: the fusion. "bidirectional", "cross_attention" and "self_attention" come after both encoders and join them
            by attention, "bidirectional" also between their layers; "intermediate" exchanges features between the
            encoders' layers alone; "concat", "weighted" and "vote" join the encoders' outputs; "none" leaves it to an
            encoder that reads the text tokens itself. "concat" and "none" have no settings.

    The other fields are the settings of the fusion of that name.
    """

    name: FusionName = "bidirectional"
    bidirectional: BidirectionalConfig = field(default_factory=BidirectionalConfig)
    cross_attention: CrossAttentionConfig = field(default_factory=CrossAttentionConfig)
    self_attention: SelfAttentionConfig = field(default_factory=SelfAttentionConfig)
    intermediate: IntermediateConfig = field(default_factory=IntermediateConfig)
    weighted: WeightedConfig = field(default_factory=WeightedConfig)
    vote: VoteConfig = field(default_factory=VoteConfig)

    def __post_init__(self) -> None:
        check_kinds("fusion", self)
        refuse_unused("fusion", self)
