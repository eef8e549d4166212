"""Configuration of the action head, one dataclass for each with settings of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs.checks import check_kinds, check_least, refuse_unused

HeadName = Literal["chunk_l1", "gaussian_mixture", "binned", "flow_matching", "none"]


@dataclass(frozen=True, kw_only=True)
class GaussianMixtureConfig:
    """A mixture of Gaussians over each step's action.

    Args:
        components: Gaussians.
    """

    components: int = 5

    def __post_init__(self) -> None:
        check_kinds("head.gaussian_mixture", self)
        check_least("head.gaussian_mixture", self, components=1)


@dataclass(frozen=True, kw_only=True)
class BinnedConfig:
    """A distribution over bins for each action dimension.

    Args:
        bins: values that an action can take.
    """

    bins: int = 41

    def __post_init__(self) -> None:
        check_kinds("head.binned", self)
        check_least("head.binned", self, bins=2)


@dataclass(frozen=True, kw_only=True)
class FlowMatchingConfig:
    """A velocity field that carries noise to actions.

    Args:
        integration_steps: steps from noise to action.
    """

    integration_steps: int = 5

    def __post_init__(self) -> None:
        check_kinds("head.flow_matching", self)
        check_least("head.flow_matching", self, integration_steps=1)


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Actions.

    Args:
        name: the action head; "chunk_l1" has no settings of its own. "none" is of policies that only ground: their
            actions are all zero, and nothing is learned from demonstrated ones.
        chunk: control steps predicted at once.
        hidden: width of its hidden layers.
        blocks: residual blocks of two layers each; with 0, two hidden layers one after the other. A hand that has to be
            put somewhere to the centimetre needs a deep network: what to do changes abruptly with the place.
        octaves: the head gets boxes and proprioception, brought to unit scale, as sines and cosines of 1, 2, 4, ...
            times their values, too (Fourier features, Tancik et al. 2020): small differences become large ones.

    The other fields are the settings of the action head of that name.
    """

    name: HeadName = "chunk_l1"
    chunk: int = 4
    hidden: int = 256
    blocks: int = 0
    octaves: int = 0
    gaussian_mixture: GaussianMixtureConfig = field(default_factory=GaussianMixtureConfig)
    binned: BinnedConfig = field(default_factory=BinnedConfig)
    flow_matching: FlowMatchingConfig = field(default_factory=FlowMatchingConfig)

    def __post_init__(self) -> None:
        check_kinds("head", self)
        check_least("head", self, chunk=1, hidden=1, blocks=0, octaves=0)
        refuse_unused("head", self)
