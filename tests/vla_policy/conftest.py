from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch

from configs.policy import (
    BackboneConfig,
    BidirectionalConfig,
    EncoderConfig,
    FusionConfig,
    HeadConfig,
    LanguageConfig,
    PolicyConfig,
    TwoStreamConfig,
)
from vla_policy.checkpoint import Checkpoint, Purpose, save_checkpoint
from vla_policy.contract import Batch, Shapes, fake_batch
from vla_policy.policy import VLAPolicy
from vla_policy.tokenizer import TOKENIZERS, WordTokenizer

torch.set_num_threads(1)

MakePolicy = Callable[..., VLAPolicy]
TEXTS = ["follow the red ball", "track the small blue cube"]
PURPOSE = Purpose(tasks=("track",), action_names=("dx", "dy", "dz"), agent_pos_names=tuple("abcd"))
SMALLEST: dict[str, dict[str, Any]] = {  # settings of variants that make them small
    "two_stream": {"temporal_channels": 4},
    "bidirectional": {"layers": 1},
    "cross_attention": {"layers": 1},
    "self_attention": {"layers": 1},
}


def variant(kind: type[Any], name: str, options: dict[str, Any], **common: Any) -> Any:
    """The configuration of a part by the variant's name, with settings of its own in `options`."""
    own = get_type_hints(kind).get(name)
    given = {**SMALLEST.get(name, {}), **options}
    return kind(name=name, **common, **({name: own(**given)} if own else {}))


@pytest.fixture
def shapes() -> Shapes:
    return Shapes(frames=3, cameras=1, size=32, proprioception=4, actions=3, vocabulary=40)


@pytest.fixture
def small() -> PolicyConfig:
    """A policy of every part's smallest size."""
    return PolicyConfig(
        encoder=EncoderConfig(
            backbone=BackboneConfig(channels=8, layers=1), two_stream=TwoStreamConfig(temporal_channels=4)
        ),
        language=LanguageConfig(max_words=12),
        fusion=FusionConfig(bidirectional=BidirectionalConfig(layers=1)),
        head=HeadConfig(chunk=2, hidden=16),
        width=16,
        attention_heads=2,
        frames=3,
    )


@pytest.fixture
def as_checkpoint() -> Callable[[VLAPolicy], Checkpoint]:
    """A policy with a tokenizer that fits it."""

    def made(policy: VLAPolicy) -> Checkpoint:
        language = policy.config.language
        if language.name == "pretrained":
            tokenizer = TOKENIZERS["pretrained"].make(language, [])
            policy.shapes = replace(policy.shapes, vocabulary=tokenizer.size)
        else:
            words = [f"word{i}" for i in range(policy.shapes.vocabulary - 2)]
            tokenizer = TOKENIZERS[language.name].make(language, words)
        return Checkpoint(policy, tokenizer, PURPOSE, {})

    return made


@pytest.fixture
def tokenizer_of() -> Callable[[int], WordTokenizer]:
    """Makes a tokenizer that knows `TEXTS` and has so many entries."""

    def make(size: int) -> WordTokenizer:
        words = sorted({word for text in TEXTS for word in text.split()})
        return WordTokenizer.train([*TEXTS, *(f"word{i}" for i in range(size - 2 - len(words)))], 12)

    return make


@pytest.fixture
def made(make_policy: MakePolicy, tokenizer_of: Callable[[int], WordTokenizer]) -> Checkpoint:
    """A checkpoint of a small policy, which is nowhere saved yet."""
    return Checkpoint(make_policy(), tokenizer_of(40), PURPOSE, {"seed": 3, "commit": "abc"})


@pytest.fixture
def folder(made: Checkpoint, tmp_path: Path) -> Path:
    """The same, saved."""
    save_checkpoint(made, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def files() -> list[str]:
    """Names of what is in the folder, in their order."""
    return ["COMPLETE", "config.json", "model.safetensors", "provenance.json", "tokenizer.json"]


@pytest.fixture
def assert_same() -> Callable[[Checkpoint, Checkpoint], None]:
    """Holds everything about two checkpoints against each other, what they do, too."""

    def check(a: Checkpoint, b: Checkpoint) -> None:
        assert a.policy.config == b.policy.config
        assert a.policy.shapes == b.policy.shapes
        assert a.purpose == b.purpose
        assert a.provenance == b.provenance
        first, second = a.policy.state_dict(), b.policy.state_dict()
        assert list(first) == list(second)
        assert all(torch.equal(value, second[name]) for name, value in first.items())
        assert (a.tokenizer.encode(TEXTS)[0] == b.tokenizer.encode(TEXTS)[0]).all()
        observation = fake_batch(a.policy.shapes, 2).observation
        assert torch.equal(a.policy.eval().act(observation).action, b.policy.eval().act(observation).action)

    return check


@pytest.fixture
def make_policy(small: PolicyConfig, shapes: Shapes, request: pytest.FixtureRequest) -> MakePolicy:
    """Builds a small policy with statistics. All weights are moved: nothing hides behind those that start at zero."""

    def make(
        *,
        encoder: str = "two_stream",
        fusion: str = "bidirectional",
        head: str = "chunk_l1",
        language: str = "transformer",
        frozen: bool = True,
        options: dict[str, dict[str, Any]] | None = None,
        seed: int = 0,
        shapes: Shapes = shapes,
        **changes: Any,
    ) -> VLAPolicy:
        text: dict[str, Any] = {}
        if language == "pretrained":  # only then: these models take seconds to make
            text = {"source": str(request.getfixturevalue("text_models")["bert"]), "frozen": frozen}
        options = options or {}
        config = replace(
            small,
            encoder=variant(EncoderConfig, encoder, options.get("encoder", {}), backbone=small.encoder.backbone),
            fusion=variant(FusionConfig, fusion, options.get("fusion", {})),
            head=variant(HeadConfig, head, options.get("head", {}), chunk=small.head.chunk, hidden=small.head.hidden),
            language=variant(LanguageConfig, language, text, max_words=small.language.max_words),
            **changes,
        )
        torch.manual_seed(seed)
        policy = VLAPolicy(config, shapes)
        policy.normaliser.set_statistics(torch.full((4,), 0.5), torch.full((4,), 0.3))
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return policy

    return make


@pytest.fixture
def batch(shapes: Shapes) -> Batch:
    """Four samples with chunks of 2 steps; one lacks an action, in another one the target is hidden at first."""
    made = fake_batch(shapes, 2, batch=4)
    mask = made.action_mask.clone()
    mask[1, 1] = False
    visible = made.visible.clone()
    visible[2, 0] = False
    return replace(made, action_mask=mask, visible=visible)
