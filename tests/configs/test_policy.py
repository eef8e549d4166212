import re
from dataclasses import FrozenInstanceError, fields
from typing import Any, get_args, get_type_hints

import pytest

from configs.checks import own_settings, variants_of
from configs.options import parse, run_config, run_parser
from configs.policy import (
    BackboneConfig,
    BidirectionalConfig,
    BinnedConfig,
    Conv3dConfig,
    EncoderConfig,
    FrameLSTMConfig,
    FusionConfig,
    GaussianMixtureConfig,
    GroundingConfig,
    HeadConfig,
    LanguageConfig,
    PolicyConfig,
    PretrainedTextConfig,
    SlowFastConfig,
    TextTransformerConfig,
    TimmConfig,
    TwoStreamConfig,
    VoteConfig,
)
from vla_policy.encoders import ENCODERS
from vla_policy.fusion import FUSIONS
from vla_policy.heads import HEADS
from vla_policy.language import LANGUAGES

ALONE: dict[str, Any] = {  # a policy that only grounds
    "encoder": EncoderConfig(name="slow_fast"),
    "fusion": FusionConfig(name="none"),
    "head": HeadConfig(name="none"),
    "grounding": GroundingConfig(extras=False, location_weight=0, positions="each_layer"),
}


@pytest.mark.parametrize(
    ("kind", "registry"),
    [(EncoderConfig, ENCODERS), (LanguageConfig, LANGUAGES), (FusionConfig, FUSIONS), (HeadConfig, HEADS)],
)
def test_names_are_exactly_those_that_are_registered(kind: type, registry: dict[str, type]) -> None:
    assert set(get_args(get_type_hints(kind)["name"])) == set(registry)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"width": 66}, "width 66 must be a multiple of 4 and of attention_heads 4"),
        ({"width": 64, "attention_heads": 3}, "of attention_heads 3"),
        ({"attention_heads": 0}, "attention_heads 0 must be at least 1"),
        ({"width": 0}, "width 0 must be at least 1"),
        ({"frames": 0}, "frames 0 must be at least 1"),
        ({"frame_stride": -1}, "frame_stride -1 must be at least 1"),
        ({"frame_ages": (8, 0)}, r"frame_ages \[8, 0\] must be 6 numbers, one for each of frames"),
        ({"frames": 3, "frame_ages": (4, 2, 1)}, "each smaller than the one before, the last 0"),
        ({"frames": 3, "frame_ages": (2, 2, 0)}, "each smaller than the one before, the last 0"),
        (
            {"frames": 3, "frame_ages": (10**19, 2, 0)},
            "frame_ages reach 10000000000000000000 control steps back, at most",
        ),
        ({"frames": 10**9}, "frames 1000000000 of frame_stride 4 reach 3999999996 control steps back, at most"),
        ({"history_dropout": 1.0}, r"history_dropout 1.0 must lie in \[0, 1\)"),
        ({"proprioception_dropout": -0.1}, "proprioception_dropout -0.1 must lie in"),
        ({"cameras": ()}, "cameras is empty"),
        ({"cameras": "front"}, "cameras is 'front', expected a list, each text"),
        ({"frames": True}, "frames is True, expected a whole number"),
        ({"width": None}, "width is None, expected a whole number"),
        ({"encoder": None}, "encoder is None, expected a section with settings"),
        ({"fusion": {"name": "vote"}}, "fusion is {'name': 'vote'}, expected a section with settings"),
        ({"fusion": FusionConfig(name="none")}, "needs an encoder that reads the text tokens itself"),
        ({**ALONE, "grounding": GroundingConfig(extras=False, location_weight=0)}, "'once' counts times back"),
        (
            {**ALONE, "encoder": EncoderConfig(name="slow_fast", slow_fast=SlowFastConfig(fast="transformer"))},
            "'transformer' attends to padded frames",
        ),
        ({**ALONE, "frames": 3, "frame_ages": (9, 2, 0)}, "reads videos evenly; set frame_stride instead"),
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
        (BackboneConfig, {"layers": 0}, "encoder.backbone.layers 0 must be at least 1"),
        (BackboneConfig, {"timm": TimmConfig(frozen=True)}, "encoder.backbone.timm.frozen True is for .* timm"),
        (TimmConfig, {"stride": 0}, "encoder.backbone.timm.stride 0 must be at least 1"),
        (FrameLSTMConfig, {"layers": 0}, "encoder.frame_lstm.layers 0 must be at least 1"),
        (Conv3dConfig, {"kernel": (3, 4)}, r"encoder.conv3d.kernel \(3, 4\) must be positive, the second number odd"),
        (Conv3dConfig, {"kernel": (3,)}, r"encoder.conv3d.kernel is \(3,\), expected a list of 2, each a whole number"),
        (TwoStreamConfig, {"streams": "gatde"}, r"streams is 'gatde', expected one of .* \(did you mean gated\?\)"),
        (BidirectionalConfig, {"layers": 0}, "fusion.bidirectional.layers 0 must be at least 1"),
        (VoteConfig, {"voters": ("spatial", "tmporal")}, "each one of spatial, temporal, language"),
        (LanguageConfig, {"max_words": 0}, "language.max_words 0 must be at least 1"),
        (TextTransformerConfig, {"layers": -1}, "language.transformer.layers -1 must be at least 1"),
        (GroundingConfig, {"giou_weight": -1.0}, "grounding.giou_weight -1.0 must be 0 or more"),
        (GroundingConfig, {"box_weight": float("inf")}, "grounding.box_weight is inf, expected a finite number"),
        (GroundingConfig, {"sigma": float("nan")}, "grounding.sigma is nan, expected a finite number"),
        (BinnedConfig, {"bins": 1}, "head.binned.bins 1 must be at least 2"),
        (HeadConfig, {"chunk": 0}, "head.chunk 0 must be at least 1"),
    ],
)
def test_impossible_parts_are_refused(kind: Any, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        kind(**wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (
            EncoderConfig,
            {"name": "conv3d", "two_stream": TwoStreamConfig(streams="sum")},
            "encoder.two_stream.streams 'sum' is for encoder.name 'two_stream', but encoder.name is 'conv3d'",
        ),
        (EncoderConfig, {"slow_fast": SlowFastConfig(clip=2)}, "encoder.slow_fast.clip 2 is for"),
        (FusionConfig, {"vote": VoteConfig(rule="majority")}, "fusion.vote.rule 'majority' is for fusion.name 'vote'"),
        (
            LanguageConfig,
            {"pretrained": PretrainedTextConfig(source="bert")},
            "language.pretrained.source 'bert' is for language.name 'pretrained'",
        ),
        (
            HeadConfig,
            {"name": "binned", "gaussian_mixture": GaussianMixtureConfig(components=2)},
            "components 2 is for",
        ),
    ],
)
def test_settings_that_nothing_reads_are_refused(kind: Any, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        kind(**given)


@pytest.mark.parametrize("kind", [EncoderConfig, LanguageConfig, FusionConfig, HeadConfig])
def test_every_variant_with_settings_is_a_section_that_is_found_by_its_name(kind: Any) -> None:
    shared = ("name", "backbone", "max_words", "chunk", "hidden", "blocks", "octaves")
    sections = [item.name for item in fields(kind) if item.name not in shared]
    assert sorted(sections) == sorted(variants_of(kind))
    for name in get_args(get_type_hints(kind)["name"]):
        needed = {"pretrained": PretrainedTextConfig(source="bert")} if name == "pretrained" else {}
        config = kind(name=name, **needed)
        assert own_settings(config) is (getattr(config, name) if name in sections else None)
    assert own_settings(kind(name="one_of_your_own")) is None  # registered elsewhere


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--policy.encoder", "null"], "option '--policy.encoder' is a section, and cannot be 'null'"),
        (["--policy.encoder.backbone=resnet18"], "option '--policy.encoder.backbone' is a section"),
        (["--policy.attention_heads", "0"], "attention_heads 0 must be at least 1"),
        (["--policy.encoder.conv3d.layers", "3"], "but encoder.name is 'two_stream'; change the name, or leave"),
    ],
)
def test_a_mistake_on_the_command_line_gets_one_line(arguments: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        run_config(parse(run_parser("train", "track"), arguments))
    assert "\n" not in str(caught.value)
