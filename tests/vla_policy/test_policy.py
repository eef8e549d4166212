import re
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.policy import TEXT_ENCODERS, GroundingConfig, LanguageConfig, PolicyConfig
from vla_policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vla_policy.contract import Aux, Batch, Observation, Shapes, fake_batch
from vla_policy.encoders import ENCODERS
from vla_policy.fusion import FUSIONS
from vla_policy.fusion.interactions import INTERACTIONS
from vla_policy.heads import HEADS as ALL_HEADS
from vla_policy.language import LANGUAGES
from vla_policy.policy import VLAPolicy

HEADS = {name: make for name, make in ALL_HEADS.items() if name != "none"}  # those that learn

MakePolicy = Callable[..., VLAPolicy]
AsCheckpoint = Callable[[VLAPolicy], Checkpoint]
CHUNK = 2
Parts = dict[str, Any]  # arguments of make_policy


def own(part: str, **settings: Any) -> Parts:
    """Settings of the variant of a part."""
    return {"options": {part: settings}}


# One change of the default at a time: another variant of a part, or another value of a setting.
CHANGES: dict[str, Parts] = {
    "default": {},
    **{f"encoder={name}": {"encoder": name} for name in ENCODERS if name != "two_stream"},
    **{f"fusion={name}": {"fusion": name} for name in FUSIONS if name not in ("bidirectional", "none")},
    "fusion=none": {"encoder": "slow_fast", "fusion": "none"},
    **{f"head={name}": {"head": name} for name in HEADS if name != "chunk_l1"},
    **{f"language={name}": {"language": name} for name in LANGUAGES if name != "transformer"},
    **{f"streams={value}": own("encoder", streams=value) for value in ("sum", "gated", "cross_attention")},
    "attention=joint": {"encoder": "space_time_attention", **own("encoder", attention="joint")},
    **{
        f"fast={fast}": {"encoder": "slow_fast", "fusion": "none", **own("encoder", fast=fast, clip=2)}
        for fast in ("none", "gated", "transformer", "pooled")
    },
    "pick=first": {"encoder": "slow_fast", "fusion": "none", **own("encoder", pick="first")},
    "stride=1": {"encoder": "slow_fast", "fusion": "none", **own("encoder", stride=1)},
    **{f"during={position}": own("fusion", during=position) for position in ("none", "early", "multi")},
    "output=sum": own("fusion", output="sum"),
    "direction=vision_reads_language": {
        "fusion": "cross_attention",
        **own("fusion", direction="vision_reads_language"),
    },
    **{
        f"interaction={value}": {"fusion": "intermediate", **own("fusion", interaction=value)}
        for value in ("hadamard", "matrix", "attention", "concat_mlp")
    },
    **{
        f"position={value}": {"fusion": "intermediate", **own("fusion", position=value)}
        for value in ("early", "middle")
    },
    **{
        f"weights={value}": {"fusion": "weighted", **own("fusion", weights=value)}
        for value in ("fixed", "vector", "attention")
    },
    **{
        f"rule={rule}": {"fusion": "vote", "head": "binned", **own("fusion", rule=rule)}
        for rule in ("majority", "weighted")
    },
    "norm=post": {"grounding": GroundingConfig(norm="post")},
    "interval": {"grounding": GroundingConfig(interval_weight=1.0, attention_weight=1.0)},
    "visibility": {"grounding": GroundingConfig(visibility_weight=1.0)},
    "feeds=pooled": {"grounding": GroundingConfig(feeds="pooled")},
}
# All combinations of parts that work together, and some pairs of changes that meet in one place.
COMBINATIONS: dict[str, Parts] = {
    **{name: parts for name, parts in CHANGES.items() if not set(parts) <= {"encoder", "fusion", "head"}},
    **{
        f"{encoder}-{fusion}-{head}": {"encoder": encoder, "fusion": fusion, "head": head}
        for encoder, fusion, head in product(ENCODERS, FUSIONS, HEADS)
        if fusion != "none" or encoder in TEXT_ENCODERS
    },
    **{
        f"{language}-{fusion}": {
            "language": language,
            "fusion": fusion,
            "encoder": "slow_fast" if fusion == "none" else "two_stream",
        }
        for language, fusion in product(LANGUAGES, FUSIONS)
        if language != "transformer"
    },
    **{
        f"{interaction}-{position}": {
            "fusion": "intermediate",
            **own("fusion", interaction=interaction, position=position),
        }
        for interaction, position in product(INTERACTIONS, ("early", "middle", "multi"))
    },
    "interval-slow_fast": {
        "encoder": "slow_fast",
        "fusion": "none",
        "grounding": GroundingConfig(interval_weight=1.0, attention_weight=1.0, layers=2),
    },
    "visibility-single_frame": {"encoder": "single_frame", "grounding": GroundingConfig(visibility_weight=1.0)},
}


@pytest.fixture(params=CHANGES)
def parts(request: pytest.FixtureRequest) -> Parts:
    """The default, and one change of it at a time."""
    return CHANGES[request.param]


@pytest.fixture
def policy(parts: Parts, make_policy: MakePolicy) -> VLAPolicy:
    return make_policy(**parts).eval()


def rows(observation: Observation, index: list[int]) -> Observation:
    there = {f.name: value for f in fields(observation) if (value := getattr(observation, f.name)) is not None}
    return Observation(**{name: value[index] for name, value in there.items()})


def everything(policy: VLAPolicy, observation: Observation) -> dict[str, Tensor]:
    chunk = policy.act(observation)
    assert chunk.aux.boxes is not None
    assert chunk.aux.location is not None
    return {"action": chunk.action, "boxes": chunk.aux.boxes, "location": chunk.aux.location, **chunk.aux.attention}


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_every_combination_has_its_shapes_and_trains(
    combination: str, make_policy: MakePolicy, batch: Batch, shapes: Shapes
) -> None:
    policy = make_policy(**COMBINATIONS[combination])
    loss, metrics = policy.loss(batch)
    loss.backward()
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert {"loss", "action"} <= set(metrics)
    assert all(torch.isfinite(v) and not v.requires_grad for v in metrics.values())
    assert metrics["loss"] == loss
    trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    if policy.config.language.name == "bag_of_words":  # where there is one text token only, none can be preferred
        trained = {name: p for name, p in trained.items() if "vision_reads" not in name}
    assert [name for name, p in trained.items() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert all(torch.isfinite(p.grad).all() for p in trained.values() if p.grad is not None)

    # Whatever proprioception there is, actions stay in their range.
    far = replace(batch.observation, agent_pos=1e4 * torch.randn_like(batch.observation.agent_pos))
    policy.eval()
    assert policy.act(far).action.abs().max() <= 1
    chunk = policy.act(batch.observation)
    b, t = len(batch), policy.encoder.grounded_frames
    assert t == (1 if policy.config.encoder.name == "single_frame" else shapes.frames)
    assert chunk.action.shape == (b, CHUNK, shapes.actions)
    assert chunk.action.dtype == torch.float32
    assert chunk.action.abs().max() <= 1
    assert not chunk.action.requires_grad
    boxes, location = chunk.aux.boxes, chunk.aux.location
    assert boxes is not None
    assert boxes.shape == (b, t, 4)
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert location is not None
    assert location.shape[:2] == (b, t)
    assert location.ndim == 4
    torch.testing.assert_close(location.sum((2, 3)), torch.ones(b, t))
    assert chunk.aux.attention
    for weights in chunk.aux.attention.values():
        assert weights.shape[:2] == (b, policy.config.attention_heads)
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


DECODER_MAPS = {"decoder_time_0", "decoder_space_0"}
READ = {"backbone_reads_language_1", "language_reads_backbone_1"}  # during encoding


@pytest.mark.parametrize(
    ("change", "maps"),
    [
        ("default", {*READ, "vision_reads_language_0", "language_reads_vision_0"}),
        ("during=none", {"vision_reads_language_0", "language_reads_vision_0"}),
        ("fusion=cross_attention", {"language_reads_vision_0"}),
        ("direction=vision_reads_language", {"vision_reads_language_0"}),
        ("fusion=self_attention", {"self_0"}),
        ("position=middle", READ),
        ("interaction=attention", {"backbone_reads_language_0", "backbone_reads_language_1"}),
        ("interaction=hadamard", set()),
        ("fusion=concat", set()),
        ("fusion=weighted", set()),
        ("fusion=vote", {f"{name}_voter_reads_vision" for name in ("spatial", "temporal", "language")}),
        ("fusion=none", {"slow_language_reads_vision_0", "slow_language_reads_vision_1"}),
    ],
)
def test_all_attention_maps_are_given_out(change: str, maps: set[str], make_policy: MakePolicy, batch: Batch) -> None:
    assert set(make_policy(**CHANGES[change]).act(batch.observation).aux.attention) == {*maps, *DECODER_MAPS}


class TestContract:
    def test_shuffling_the_batch_shuffles_the_output(self, policy: VLAPolicy, batch: Batch) -> None:
        order = [2, 0, 3, 1]
        straight = everything(policy, batch.observation)
        shuffled = everything(policy, rows(batch.observation, order))
        for name, value in straight.items():
            torch.testing.assert_close(shuffled[name], value[order], msg=name)

    def test_no_row_depends_on_another(self, policy: VLAPolicy, batch: Batch, shapes: Shapes) -> None:
        alone = everything(policy, rows(batch.observation, [0]))
        together = everything(policy, batch.observation)
        stranger = fake_batch(shapes, CHUNK, batch=4, seed=9).observation
        own, others = rows(batch.observation, [0]), rows(stranger, [1, 2, 3])
        there = [f.name for f in fields(Observation) if getattr(own, f.name) is not None]
        mixed = Observation(**{name: torch.cat([getattr(own, name), getattr(others, name)]) for name in there})
        among_strangers = everything(policy, mixed)
        for name, value in alone.items():
            torch.testing.assert_close(together[name][:1], value, msg=name)
            torch.testing.assert_close(among_strangers[name][:1], value, msg=name)

    def test_padding_of_the_words_has_no_effect(self, policy: VLAPolicy, batch: Batch) -> None:
        seen = batch.observation
        b, words = seen.tokens.shape
        longer = replace(
            seen,
            tokens=torch.cat([seen.tokens, torch.randint(2, 40, (b, 12 - words))], dim=1),
            token_mask=torch.cat([seen.token_mask, torch.zeros(b, 12 - words, dtype=torch.bool)], dim=1),
        )
        other = replace(seen, tokens=torch.where(seen.token_mask, seen.tokens, 3))
        expected = everything(policy, seen)
        for observation in (longer, other):
            got = everything(policy, observation)
            for name in ("action", "boxes", "location"):
                torch.testing.assert_close(got[name], expected[name], msg=name)

    def test_words_pictures_and_joints_all_matter(self, policy: VLAPolicy, batch: Batch) -> None:
        seen = batch.observation
        before = policy(seen).action
        changed = {
            "tokens": torch.where(seen.token_mask, (seen.tokens + 5) % 38 + 2, seen.tokens),
            "frames": 255 - seen.frames,
            "agent_pos": seen.agent_pos + 1,
        }
        for name, value in changed.items():
            after = policy(replace(seen, **{name: value})).action
            assert ((after - before).abs().flatten(1).amax(1) > 1e-4).all(), name

    def test_saved_and_loaded_it_gives_the_same(
        self, policy: VLAPolicy, batch: Batch, as_checkpoint: AsCheckpoint, tmp_path: Path
    ) -> None:
        save_checkpoint(as_checkpoint(policy), tmp_path / "checkpoint")
        loaded = load_checkpoint(tmp_path / "checkpoint").policy
        assert not loaded.training
        expected = everything(policy, batch.observation)
        for name, value in everything(loaded, batch.observation).items():
            assert torch.equal(value, expected[name]), name

    def test_acting_twice_gives_the_same(self, policy: VLAPolicy, batch: Batch) -> None:
        first, second = policy.act(batch.observation), policy.act(batch.observation)
        assert torch.equal(first.action, second.action)

    def test_several_cameras(self, parts: Parts, make_policy: MakePolicy, shapes: Shapes) -> None:
        two = replace(shapes, cameras=2)
        both = make_policy(**parts, shapes=two, cameras=("front", "wrist"))
        batch = fake_batch(two, CHUNK, batch=3)
        loss, _ = both.loss(batch)
        loss.backward()
        assert torch.isfinite(loss)
        chunk = both.eval().act(batch.observation)
        assert chunk.action.shape == (3, CHUNK, shapes.actions)
        blind = replace(batch.observation, frames=batch.observation.frames.clone())
        blind.frames[:, :, 1] = 0
        assert (both(blind).action - both(batch.observation).action).abs().max() > 1e-5


@pytest.mark.parametrize("frozen", [True, False])
def test_a_fine_tuned_text_model_learns_and_a_frozen_one_does_not(
    make_policy: MakePolicy, batch: Batch, frozen: bool
) -> None:
    policy = make_policy(language="pretrained", frozen=frozen)
    policy.loss(batch)[0].backward()
    text = [p for p in policy.language.model.parameters() if p.requires_grad]  # type: ignore[union-attr]
    assert bool(text) is not frozen
    assert all(p.grad is not None for p in policy.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        (
            "frames",
            torch.zeros(2, 3, 1, 3, 32, 32),
            "got (2, 3, 1, 3, 32, 32) torch.float32, expected (2, 3, 1, 3, 32, 32) torch.uint8",
        ),
        (
            "frames",
            torch.zeros(2, 4, 1, 3, 32, 32, dtype=torch.uint8),
            "got (2, 4, 1, 3, 32, 32) torch.uint8, expected (2, 3, 1, 3, 32, 32)",
        ),
        ("frames", torch.zeros(2, 3, 1, 32, 32, 3, dtype=torch.uint8), "got (2, 3, 1, 32, 32, 3)"),
        ("frames", torch.zeros(2, 3, 2, 3, 32, 32, dtype=torch.uint8), "expected (2, 3, 1, 3, 32, 32)"),
        ("frames", torch.zeros(2, 3, 1, 3, 64, 64, dtype=torch.uint8), "expected (2, 3, 1, 3, 32, 32)"),
        ("agent_pos", torch.zeros(2, 3, 5), "got (2, 3, 5) torch.float32, expected (2, 3, 4)"),
        ("agent_pos", torch.zeros(1, 3, 4), "got (1, 3, 4) torch.float32, expected (2, 3, 4)"),
        ("agent_pos", torch.zeros(2, 3, 4, dtype=torch.float64), "expected (2, 3, 4) torch.float32"),
        ("tokens", torch.zeros(2, 7), "got (2, 7) torch.float32, expected (2, 7) torch.int64"),
        ("tokens", torch.zeros(7, dtype=torch.int64), "got (7,) torch.int64, expected (2, 7)"),
        ("token_mask", torch.ones(2, 6, dtype=torch.bool), "got (2, 6) torch.bool, expected (2, 7)"),
        ("token_mask", torch.ones(2, 7, dtype=torch.int64), "expected (2, 7) torch.bool"),
    ],
)
def test_wrong_shapes_and_types_are_refused(
    make_policy: MakePolicy, shapes: Shapes, name: str, wrong: Tensor, words: str
) -> None:
    observation = replace(fake_batch(shapes, CHUNK).observation, **{name: wrong})
    with pytest.raises(ValueError, match=f"^{name}: .*{re.escape(words)}") as caught:
        make_policy().act(observation)
    assert "\n" not in str(caught.value)


def test_a_policy_without_statistics_refuses_to_act(small: PolicyConfig, shapes: Shapes) -> None:
    with pytest.raises(ValueError, match="the normaliser has no statistics"):
        VLAPolicy(small, shapes).act(fake_batch(shapes, CHUNK).observation)


def test_the_default_is_small() -> None:
    shapes = Shapes(frames=6, cameras=1, size=64, proprioception=16, actions=5, vocabulary=200)
    count = sum(p.numel() for p in VLAPolicy(PolicyConfig(), shapes).parameters())
    assert count <= 2_000_000


@pytest.mark.parametrize("grounding", [
    GroundingConfig(),
    GroundingConfig(scope="visible"),
    GroundingConfig(interval_weight=1.0, visibility_weight=1.0, attention_weight=1.0, layers=2),
    GroundingConfig(feeds="pooled"),
], ids=["boxes", "visible", "event", "pooled"])  # fmt: skip
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("event", [True, False])
def test_a_batch_without_any_box_trains(
    make_policy: MakePolicy, batch: Batch, head: str, grounding: GroundingConfig, event: bool
) -> None:
    policy = make_policy(head=head, grounding=grounding)
    unlabelled = replace(
        batch,
        boxes=torch.full_like(batch.boxes, torch.nan),
        visible=torch.zeros_like(batch.visible),
        event=torch.full_like(batch.event, event),
    )
    loss, metrics = policy.loss(unlabelled)
    loss.backward()
    assert all(torch.isfinite(value) for value in metrics.values()), metrics
    assert metrics["location"] == metrics["box"] == metrics["iou"] == 0
    assert metrics["action"] > 0
    gradients = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    assert gradients["encoder.backbone.stem.0.weight"].abs().sum() > 0  # from the actions


def test_invisible_targets_and_missing_actions_do_not_train(make_policy: MakePolicy, batch: Batch) -> None:
    policy = make_policy().eval()
    none = replace(batch, visible=torch.zeros_like(batch.visible), action_mask=torch.zeros_like(batch.action_mask))
    assert policy.loss(none)[0] == 0


def test_an_empty_aux_is_allowed() -> None:
    assert Aux() == Aux(boxes=None, location=None, attention={})


def test_the_seed_decides_the_weights(make_policy: MakePolicy) -> None:
    first, second, other = make_policy(seed=1), make_policy(seed=1), make_policy(seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_pretrained_language_needs_a_name() -> None:
    with pytest.raises(ValueError, match=r"'pretrained' needs language.pretrained.source"):
        LanguageConfig(name="pretrained")
