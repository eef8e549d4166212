"""Checkpoints of version 1: their settings become those of today."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.checks import own_settings
from configs.decode import decode
from configs.policy import (
    BackboneConfig,
    BidirectionalConfig,
    BinnedConfig,
    Conv3dConfig,
    CrossAttentionConfig,
    FlowMatchingConfig,
    FrameLSTMConfig,
    FrameTransformerConfig,
    GaussianMixtureConfig,
    GroundingConfig,
    IntermediateConfig,
    PolicyConfig,
    PretrainedTextConfig,
    SelfAttentionConfig,
    SlowFastConfig,
    SpaceTimeAttentionConfig,
    TextTransformerConfig,
    TimmConfig,
    TwoStreamConfig,
    VoteConfig,
    WeightedConfig,
)
from vla_policy import checkpoint as module
from vla_policy.checkpoint import (
    Checkpoint,
    Purpose,
    load_checkpoint,
    save_checkpoint,
    upgrade_policy,
)
from vla_policy.contract import fake_batch
from vla_policy.policy import VLAPolicy
from vla_policy.tokenizer import WordTokenizer

PURPOSE = Purpose(tasks=("track",), action_names=("dx", "dy", "dz"), agent_pos_names=("a", "b", "c", "d"))


# The settings of a policy as version 1 wrote them.
FLAT: dict[str, Any] = {
    "encoder": {
        "name": "two_stream",
        "channels": 8,
        "layers": 1,
        "backbone": "small",
        "stride": 4,
        "weights": "",
        "frozen": False,
        "temporal_channels": 4,
        "streams": "gated",
        "attention": "divided",
        "temporal_layers": 3,
        "kernel": [2, 5],
        "clip": 4,
        "pick": "first",
        "slow_stride": 1,
        "fast": "gated",
    },
    "language": {"name": "transformer", "layers": 2, "pretrained": "", "frozen": True, "max_words": 12},
    "fusion": {
        "name": "bidirectional",
        "layers": 1,
        "during": "early",
        "output": "sum",
        "direction": "vision_reads_language",
        "interaction": "matrix",
        "position": "middle",
        "weights": "vector",
        "rule": "weighted",
        "voters": ["spatial", "language"],
    },
    "grounding": {"layers": 2, "norm": "post"},
    "head": {"name": "binned", "chunk": 2, "hidden": 16, "components": 3, "bins": 21, "integration_steps": 4},
    "width": 16,
    "heads": 2,
    "frames": 3,
    "cameras": ["front"],
}


def flat(**changes: dict[str, Any]) -> dict[str, Any]:
    return {**FLAT, **{part: {**FLAT[part], **values} for part, values in changes.items()}}


class TestUpgrade:
    @pytest.mark.parametrize(
        ("changes", "part", "expected"),
        [
            ({}, "encoder", TwoStreamConfig(temporal_channels=4, streams="gated")),
            ({"encoder": {"name": "single_frame"}}, "encoder", None),
            ({"encoder": {"name": "frame_lstm"}}, "encoder", FrameLSTMConfig(layers=3)),
            ({"encoder": {"name": "frame_transformer"}}, "encoder", FrameTransformerConfig(layers=3)),
            ({"encoder": {"name": "conv3d"}}, "encoder", Conv3dConfig(layers=3, kernel=(2, 5))),
            ({"encoder": {"name": "space_time_attention"}}, "encoder", SpaceTimeAttentionConfig(layers=3)),
            (
                {"encoder": {"name": "slow_fast"}},
                "encoder",
                SlowFastConfig(layers=3, clip=4, pick="first", stride=1, fast="gated"),
            ),
            ({}, "language", TextTransformerConfig(layers=2)),
            (
                {"language": {"name": "pretrained", "pretrained": "bert", "frozen": False}},
                "language",
                PretrainedTextConfig(source="bert", frozen=False),
            ),
            ({}, "fusion", BidirectionalConfig(layers=1, during="early", output="sum")),
            (
                {"fusion": {"name": "cross_attention"}},
                "fusion",
                CrossAttentionConfig(layers=1, direction="vision_reads_language", output="sum"),
            ),
            ({"fusion": {"name": "self_attention"}}, "fusion", SelfAttentionConfig(layers=1, output="sum")),
            (
                {"fusion": {"name": "intermediate"}},
                "fusion",
                IntermediateConfig(interaction="matrix", position="middle", output="sum"),
            ),
            ({"fusion": {"name": "weighted"}}, "fusion", WeightedConfig(weights="vector")),
            ({"fusion": {"name": "vote"}}, "fusion", VoteConfig(rule="weighted", voters=("spatial", "language"))),
            ({"fusion": {"name": "concat"}}, "fusion", None),
            ({}, "head", BinnedConfig(bins=21)),
            ({"head": {"name": "gaussian_mixture"}}, "head", GaussianMixtureConfig(components=3)),
            ({"head": {"name": "flow_matching"}}, "head", FlowMatchingConfig(integration_steps=4)),
            ({"head": {"name": "chunk_l1"}}, "head", None),
        ],
    )
    def test_each_variant_keeps_its_own_settings(
        self, changes: dict[str, dict[str, Any]], part: str, expected: object
    ) -> None:
        config = decode(PolicyConfig, upgrade_policy(flat(**changes)))
        assert own_settings(getattr(config, part)) == expected

    def test_what_all_variants_share_is_kept(self) -> None:
        config = decode(PolicyConfig, upgrade_policy(FLAT))
        assert (config.width, config.attention_heads, config.frames, config.cameras) == (16, 2, 3, ("front",))
        assert config.encoder.backbone == BackboneConfig(channels=8, layers=1)
        assert (config.language.max_words, config.head.chunk, config.head.hidden) == (12, 2, 16)
        assert config.grounding == GroundingConfig(layers=2, norm="post")

    def test_a_timm_model_keeps_its_settings(self) -> None:
        old = flat(encoder={"backbone": "resnet18", "stride": 8, "weights": "hub", "frozen": True})
        config = decode(PolicyConfig, upgrade_policy(old))
        timm = TimmConfig(stride=8, weights="hub", frozen=True)
        assert config.encoder.backbone == BackboneConfig(name="resnet18", channels=8, layers=1, timm=timm)

    def test_before_the_exchange_during_encoding_there_was_none(self) -> None:
        old = flat()
        old["fusion"] = {name: value for name, value in old["fusion"].items() if name != "during"}
        assert upgrade_policy(old)["fusion"]["bidirectional"]["during"] == "none"

    def test_unknown_settings_are_not_lost_but_refused(self) -> None:
        with pytest.raises(ValueError, match=r"fusion.colour: not a known field"):
            decode(PolicyConfig, upgrade_policy(flat(fusion={"colour": "red"})))

    def test_a_checkpoint_of_version_1_acts_as_it_did(
        self, make_policy: Callable[..., VLAPolicy], tmp_path: Path
    ) -> None:
        options = {
            "encoder": {"streams": "gated"},
            "fusion": {"during": "early", "output": "sum"},
            "head": {"bins": 21},
        }
        policy = make_policy(head="binned", options=options, grounding=GroundingConfig(layers=2, norm="post"))
        tokenizer = WordTokenizer.train([f"word{i}" for i in range(policy.shapes.vocabulary - 2)], 12)
        save_checkpoint(Checkpoint(policy, tokenizer, PURPOSE, {}), tmp_path / "checkpoint")
        assert json.loads((tmp_path / "checkpoint" / "config.json").read_text())["schema_version"] == 2
        old = flat(language={"layers": 1})
        config = tmp_path / "checkpoint" / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "schema_version": 1, "policy": old}))
        loaded = load_checkpoint(tmp_path / "checkpoint")
        assert (loaded.policy.config, loaded.purpose) == (policy.config, PURPOSE)
        observation = fake_batch(policy.shapes, 2).observation
        assert torch.equal(loaded.policy.eval().act(observation).action, policy.eval().act(observation).action)

    def test_the_first_policy_that_ships_is_of_version_1_and_loads(self) -> None:
        described = json.loads((module.SHIPPED / "default" / "config.json").read_text())
        assert described["schema_version"] == 1
        config = load_checkpoint(module.SHIPPED / "default").policy.config
        assert config.fusion.bidirectional.during == described["policy"]["fusion"].get("during", "none")
        assert config.attention_heads == described["policy"]["heads"]
