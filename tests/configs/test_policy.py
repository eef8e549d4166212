from dataclasses import FrozenInstanceError, fields
from typing import Any, get_args, get_type_hints

import pytest

from configs.policy import EncoderConfig, FusionConfig, GroundingConfig, HeadConfig, LanguageConfig, PolicyConfig
from vla_policy.encoders import ENCODERS
from vla_policy.fusion import FUSIONS
from vla_policy.heads import HEADS
from vla_policy.language import LANGUAGES


@pytest.mark.parametrize(
    ("kind", "registry"),
    [(EncoderConfig, ENCODERS), (LanguageConfig, LANGUAGES), (FusionConfig, FUSIONS), (HeadConfig, HEADS)],
)
def test_names_are_exactly_those_that_are_registered(kind: type, registry: dict[str, type]) -> None:
    assert set(get_args(get_type_hints(kind)["name"])) == set(registry)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"width": 66}, "width 66 must be a multiple of 4 and of heads 4"),
        ({"width": 64, "heads": 3}, "of heads 3"),
        ({"frames": 0}, "frames 0 must be at least 1"),
        ({"frame_stride": -1}, "frame_stride -1 must be at least 1"),
        ({"history_dropout": 1.0}, r"history_dropout 1.0 must lie in \[0, 1\)"),
        ({"proprioception_dropout": -0.1}, "proprioception_dropout -0.1 must lie in"),
        ({"cameras": ()}, "cameras is empty"),
        ({"cameras": ("front", "front")}, r"cameras \['front', 'front'\] must name each camera once"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PolicyConfig(**wrong)


def test_configs_do_not_change_and_take_no_positions() -> None:
    config = PolicyConfig()
    with pytest.raises(FrozenInstanceError):
        config.width = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        PolicyConfig(EncoderConfig())  # type: ignore[misc]
    assert all(item.kw_only for item in fields(PolicyConfig))


@pytest.mark.parametrize(
    ("kind", "wrong", "words"),
    [
        (EncoderConfig, {"layers": 0}, "encoder.layers 0 must be at least 1"),
        (EncoderConfig, {"kernel": (3, 4)}, r"encoder.kernel \(3, 4\) must be positive, the second number odd"),
        (EncoderConfig, {"frozen": True}, "encoder.weights and encoder.frozen are for timm models"),
        (FusionConfig, {"layers": 0}, "fusion.layers 0 must be at least 1"),
        (LanguageConfig, {"max_words": 0}, "language.max_words 0 must be at least 1"),
        (LanguageConfig, {"layers": -1}, "language.layers -1 must be at least 1"),
        (GroundingConfig, {"giou_weight": -1.0}, "grounding.giou_weight -1.0 must be 0 or more"),
        (HeadConfig, {"bins": 1}, "head.bins 1 must be at least 2"),
        (HeadConfig, {"chunk": 0}, "head.chunk 0 must be at least 1"),
    ],
)
def test_impossible_parts_are_refused(kind: Any, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        kind(**wrong)
