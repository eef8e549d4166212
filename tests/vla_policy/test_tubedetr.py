"""The paper's network is one of ours: held against the one in `tubedetr_reference.py`, with ported weights."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from configs.options import parse, run_config, run_parser
from configs.policy import PolicyConfig
from eval.report.video import write_mp4
from tests.vla_policy.tubedetr_reference import Reference
from training.data.episodes import Dataset
from vla_policy.checkpoint import load_checkpoint
from vla_policy.cli import main
from vla_policy.contract import Observation, Shapes
from vla_policy.grounding.interval import best_interval
from vla_policy.policy import VLAPolicy
from vla_policy.published import take_published

SIZE, D, HEADS, DEPTH, K = 96, 32, 4, 2, 3
LENGTHS, WORDS = (7, 4), (6, 3)  # of the two videos: neither is a multiple of K
SMALL = [
    "--config=tubedetr",
    "--policy.encoder.backbone.name=resnet18",
    "--policy.encoder.backbone.timm.weights=",
    f"--policy.width={D}",
    f"--policy.attention_heads={HEADS}",
    f"--policy.encoder.slow_fast.layers={DEPTH}",
    f"--policy.encoder.slow_fast.clip={K}",
    f"--policy.grounding.layers={DEPTH}",
    "--policy.frames=8",
    "--policy.language.max_words=8",
]
TOLERANCE = 1e-5  # of the largest number


def close(got: Tensor, expected: Tensor) -> None:
    assert got.shape == expected.shape
    off = (got - expected).abs().max() / expected.abs().max()
    assert off <= TOLERANCE, f"relative error {off:.1e}"


@pytest.fixture(scope="module")
def source(text_models: dict[str, Path]) -> Path:
    return text_models["roberta"]


def settings(source: Path, *more: str) -> list[str]:
    return [*SMALL, f"--policy.language.pretrained.source={source}", *more]


def config_of(source: Path, *more: str) -> PolicyConfig:
    return run_config(parse(run_parser("train", "track"), settings(source, *more))).policy


def make_reference(source: Path, fast: str = "linear") -> Any:
    importlib.import_module("vla_policy.torchvision_shim")
    from torchvision.models import resnet18
    from torchvision.ops import FrozenBatchNorm2d
    from transformers import RobertaModel

    torch.manual_seed(1)
    body = resnet18(norm_layer=FrozenBatchNorm2d)
    del body.avgpool, body.fc
    text = RobertaModel.from_pretrained(source)
    made = Reference(body, text, width=D, heads=HEADS, feed=8 * D, depth=DEPTH, k=K, fast=fast).eval()
    with torch.no_grad():
        for name, value in made.state_dict().items():  # nothing hides behind zeros and ones
            if "running_var" in name:
                value.uniform_(0.5, 1.5)
            elif value.is_floating_point() and "time_embed" not in name:
                value.add_(0.05 * torch.randn_like(value))
        made.input_proj.weight /= made.features(torch.randint(0, 256, (2, 3, SIZE, SIZE)).float()).std()
    return made


def make_policy(config: PolicyConfig, reference: nn.Module) -> VLAPolicy:
    shapes = Shapes(frames=config.frames, cameras=1, size=SIZE, proprioception=1, actions=1, vocabulary=290)
    policy = VLAPolicy(config, shapes).eval()
    policy.normaliser.set_statistics(torch.zeros(1), torch.ones(1))
    taken = take_published(policy, reference.state_dict())
    assert (taken.missing, taken.unknown) == ((), ())
    return policy


@pytest.fixture
def observation() -> Observation:
    """Two videos in one batch: of two lengths, with sentences of two lengths, and one of them letterboxed."""
    torch.manual_seed(0)
    words = torch.arange(max(WORDS))[None] < torch.tensor(WORDS)[:, None]
    pixels = torch.ones(2, SIZE, SIZE, dtype=torch.bool)
    pixels[1, 2 * SIZE // 3 :] = False
    return Observation(
        frames=torch.randint(0, 256, (2, max(LENGTHS), 1, 3, SIZE, SIZE), dtype=torch.uint8),
        agent_pos=torch.zeros(2, max(LENGTHS), 1),
        tokens=torch.where(words, torch.randint(3, 200, words.shape), 1),
        token_mask=words,
        frame_mask=torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None],
        pixel_mask=pixels,
    )


def alone(observation: Observation, video: int) -> tuple[Tensor, Tensor, Tensor]:
    assert observation.pixel_mask is not None
    frames = observation.frames[video, : LENGTHS[video], 0].float()
    return frames, observation.tokens[video, : WORDS[video]], observation.pixel_mask[video]


@pytest.mark.parametrize("fast", ["linear", "gated", "none", "noslow", "pooled", "published_transformer"])
def test_it_is_the_papers_network(source: Path, observation: Observation, fast: str) -> None:
    reference = make_reference(source, fast)
    config = config_of(source, f"--policy.encoder.slow_fast.fast={fast}")
    if fast in ("none", "noslow"):  # the published code makes layers that these variants do not use
        for unused in ("transformer.fast_residual", *(("transformer.encoder",) if fast == "noslow" else ())):
            part, _, name = unused.rpartition(".")
            if hasattr(reference.get_submodule(part), name):
                delattr(reference.get_submodule(part), name)
    policy = make_policy(config, reference)
    with torch.no_grad():
        exchange = policy.fusion.exchange(
            policy.language, policy.language.embed(observation.tokens, observation.token_mask)
        )
        seen = policy.encoder(observation.frames, exchange, padding=padding_of(observation))
        output = policy.grounding(seen, policy.fusion(seen, exchange.encoded_text()))
        for video, (count, words) in enumerate(zip(LENGTHS, WORDS, strict=True)):
            joined, boxes, queries, events = reference(*alone(observation, video))
            places = seen.frames.shape[2]
            shown = padding_of(observation).places(seen.grid)[video].flatten()
            close(seen.frames[video, :count, shown], joined[:, :places][:, shown])
            close(seen.text.tokens[video, :count, :words], joined[:, places:])
            by_layer = [*output.earlier, output]
            for layer, (query, event) in enumerate(zip(queries, events, strict=True)):
                close(by_layer[layer].queries[video, :count], query)
                told = torch.stack([by_layer[layer].event.start, by_layer[layer].event.end], -1)[video, :count]
                close(told, event)
            close(output.boxes[video, :count], boxes)


def padding_of(observation: Observation) -> Any:
    from vla_policy.tokens import Padding

    return Padding(frames=observation.frame_mask, pixels=observation.pixel_mask)


def test_attention_interval_and_boxes_are_the_papers(source: Path, observation: Observation) -> None:
    reference = make_reference(source)
    policy = make_policy(config_of(source), reference)
    aux = policy.act(observation).aux
    assert aux.boxes is not None
    assert aux.start_logits is not None
    assert aux.end_logits is not None
    for video, count in enumerate(LENGTHS):
        with torch.no_grad():
            _, boxes, _, events = reference(*alone(observation, video))
        for i, layer in enumerate(reference.transformer.decoder.layers):
            seen = aux.attention[f"decoder_time_{i}"][video].mean(0)
            close(seen[:count, :count], layer.weights[0])
            assert (seen[:, count:] == 0).all()
        start, end = events[-1].T[:, None]
        close(aux.start_logits[video, :count], start[0])
        close(aux.boxes[video, :count], boxes)
        got = best_interval(aux.start_logits[video : video + 1], aux.end_logits[video : video + 1])
        assert got[:2] == best_interval(start, end)[:2]


def published_file(reference: nn.Module, path: Path, **changes: Any) -> Path:
    """A checkpoint in the layout of the published ones: weights, their average, an optimiser's state, the options."""
    weights = {**reference.state_dict(), **changes}
    weights = {name: value for name, value in weights.items() if value is not None}
    other = {name: torch.zeros_like(value) for name, value in weights.items()}
    options = argparse.Namespace(lr=5e-5, backbone="resnet101")
    torch.save({"model": other, "model_ema": weights, "optimizer": {"state": {}}, "epoch": 9, "args": options}, path)
    return path


def test_a_published_checkpoint_is_imported(source: Path, observation: Observation, tmp_path: Path) -> None:
    reference = make_reference(source)
    file = published_file(reference, tmp_path / "published.pth")
    given = settings(source, f"--size={SIZE}", f"--out={tmp_path / 'made'}")
    assert main(["import", str(file), *given]) == 0
    checkpoint = load_checkpoint(tmp_path / "made")
    assert checkpoint.purpose.control_hz == 5
    aux = checkpoint.policy.act(observation).aux
    assert aux.boxes is not None
    with torch.no_grad():
        _, boxes, _, _ = reference(*alone(observation, 0))
    close(aux.boxes[0, : LENGTHS[0]], boxes)


def test_what_was_imported_reads_every_frame_of_its_rate(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, made = published_file(make_reference(source), tmp_path / "published.pth"), tmp_path / "made"
    assert main(["import", str(file), *settings(source), f"--size={SIZE}", f"--out={made}"]) == 0
    seen, act = [], VLAPolicy.act

    def spy(self: VLAPolicy, observation: Observation) -> Any:
        seen.append(observation.frames.shape[1])
        return act(self, observation)

    monkeypatch.setattr(VLAPolicy, "act", spy)
    video = write_mp4(tmp_path / "a.mp4", [np.full((64, 128, 3), 9, np.uint8)] * 60, 30)
    command = ["ground", str(made), f"--video={video}", "--instruction=the ball", f"--out={tmp_path / 'out'}"]
    assert main(command) == 0
    assert seen == [8, 2]  # two seconds, five pictures each; eight at a time


def test_what_was_imported_can_be_trained_on(
    source: Path, tmp_path: Path, write_small: Callable[..., Dataset], capsys: pytest.CaptureFixture[str]
) -> None:
    file, made = published_file(make_reference(source), tmp_path / "published.pth"), tmp_path / "made"
    assert main(["import", str(file), *settings(source), "--size=32", f"--out={made}"]) == 0
    data = write_small(size=32)
    few = ["--tasks=track", "--train.steps=1", "--train.batch=2", "--policy.frames=4", "--policy.frame_stride=1"]
    given = settings(source, *few, f"--data={data.path}", f"--policy-from={made}", f"--out={tmp_path / 'run'}")
    assert main(["train", *given]) == 0
    before, after = load_checkpoint(made), load_checkpoint(tmp_path / "run" / "checkpoint")
    assert after.purpose.agent_pos_names == data.interface.agent_pos_names
    frozen = "encoder.backbone.stem.model.conv1.weight"
    assert torch.equal(before.policy.state_dict()[frozen], after.policy.state_dict()[frozen])
    assert "anew" not in after.provenance["start"]


def test_of_mdetrs_queries_the_first_is_taken(source: Path, tmp_path: Path) -> None:
    reference, hundred = make_reference(source), torch.rand(100, D)
    changes = {"query_embed.weight": hundred, "contrastive_align.weight": torch.ones(2, 2)}
    file = published_file(reference, tmp_path / "mdetr.pth", **changes)
    made = tmp_path / "made"
    assert main(["import", str(file), *settings(source), f"--size={SIZE}", f"--out={made}", "--partial"]) == 0
    assert torch.equal(load_checkpoint(made).policy.grounding.object.weight, hundred[:1])


def test_what_a_file_lacks_and_what_has_no_place_is_named(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = make_reference(source)
    changes = {"query_embed.weight": None, "class_embed.weight": torch.ones(2, 2)}
    file = published_file(reference, tmp_path / "published.pth", **changes)
    given = settings(source, f"--size={SIZE}", f"--out={tmp_path / 'made'}")
    assert main(["import", str(file), *given]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "lacks 'grounding.object.weight' and has 'class_embed.weight', which have no place" in line
    assert "--partial" in line
    assert main(["import", str(file), *given, "--partial"]) == 0
    assert "not in the file: 'grounding.object.weight'" in capsys.readouterr().out
    given.append(f"--out={tmp_path / 'again'}")
    assert main(["import", str(file), *given, "--policy.grounding.layers=3"]) == 2
    assert "'grounding.blocks.2." in capsys.readouterr().err
    assert main(["import", str(file), *given, "--policy.encoder.slow_fast.feed_ratio=4"]) == 2
    assert "is (256, 32), expected (128, 32); give the --policy settings" in capsys.readouterr().err


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path("harmed").touch, ()


def test_a_file_is_read_and_not_executed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Harmful()}, "bad.pth")
    Path("text.pth").write_text("no weights")
    torch.save({"epoch": 1}, "empty.pth")
    torch.save({"model": {"other": torch.ones(2)}}, "other.pth")
    attention, bias = "transformer.encoder.layers.0.self_attn.in_proj_weight", "input_proj.bias"
    for name, weights in {
        "one": torch.ones(3),
        "numbers": {1: torch.ones(3)},
        "nan": {bias: torch.full((32,), torch.nan)},
        "sparse": {bias: torch.ones(32).to_sparse()},
        "many": {"input_proj.weight": torch.ones(1).expand(10**5, 10**5, 10, 10)},
        "flat": {"input_proj.weight": torch.ones(3)},
        "scalar": {attention: torch.tensor(1.0)},
        "two": {attention: torch.ones(2, 2)},
        "eight": {bias: torch.ones(32).to(torch.float8_e4m3fn)},
    }.items():
        torch.save({"model": weights}, f"{name}.pth")
    torch.save({"model": {bias: torch.ones(32)}}, "whole.pth", _use_new_zipfile_serialization=False)
    whole = Path("whole.pth").read_bytes()
    at = whole.index(b"input_proj")
    for i, byte in enumerate((0, 1, 82, 255)):
        Path(f"damaged{i}.pth").write_bytes(whole[: at - 4] + bytes([byte]) * 3 + whole[at - 1 :])
    for name, message in (
        ("bad.pth", "no checkpoint that can be read safely (it wants to run getattr)"),
        *((f"damaged{i}.pth", "no checkpoint that can be read safely") for i in range(4)),
        ("eight.pth", "'input_proj.bias' is torch.strided torch.float8_e4m3fn on cpu, expected an array of plain"),
        ("text.pth", "no checkpoint that can be read safely"),
        ("nowhere.pth", "no such file; give a published checkpoint"),
        ("empty.pth", "holds no weights"),
        ("other.pth", "none of its 1 weights is TubeDETR's, such as 'other'"),
        ("one.pth", "none of its 1 weights is TubeDETR's, such as 'model'"),
        ("numbers.pth", "holds no weights"),
        ("nan.pth", "'input_proj.bias' has values that are not finite"),
        (
            "sparse.pth",
            "'input_proj.bias' is torch.sparse_coo torch.float32 on cpu, expected an array of plain numbers",
        ),
        ("many.pth", "'input_proj.weight' is (100000, 100000, 10, 10), of which the file does not hold all numbers"),
        ("flat.pth", "'input_proj.weight' is (3,), expected"),
        ("scalar.pth", "is (), expected query, key and value"),
        ("two.pth", "is (2, 2), expected query, key and value"),
    ):
        assert main(["import", name, *settings(source), "--out=made"]) == 2
        [line] = capsys.readouterr().err.strip().splitlines()
        assert message in line
    assert not Path("harmed").exists()
    Path("made").mkdir()
    Path("made/COMPLETE").write_text("a checkpoint of days")
    assert main(["import", "other.pth", *settings(source), "--out=made"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert Path("made/COMPLETE").read_text() == "a checkpoint of days"
    assert main(["import", "other.pth", "--config=track"]) == 2
    assert "begin with --config tubedetr" in capsys.readouterr().err


def test_padding_is_for_policies_that_only_ground(source: Path, observation: Observation) -> None:
    config = config_of(source, "--policy.head.name=chunk_l1")
    shapes = Shapes(frames=8, cameras=1, size=SIZE, proprioception=1, actions=1, vocabulary=290)
    policy = VLAPolicy(config, shapes)
    policy.normaliser.set_statistics(torch.zeros(1), torch.ones(1))
    whole = replace(
        observation, frames=observation.frames.repeat(1, 2, 1, 1, 1, 1)[:, :8], agent_pos=torch.zeros(2, 8, 1)
    )
    with pytest.raises(ValueError, match="padding is for policies that do nothing but ground"):
        policy(replace(whole, frame_mask=torch.ones(2, 8, dtype=torch.bool), pixel_mask=None))


def test_the_fast_branch_sends_the_backbone_no_gradient(source: Path, observation: Observation) -> None:
    """In training mode the clips' frames alone are encoded with gradients, and the outcome is the same."""
    found = []
    for option in ("true", "false"):
        config = config_of(source, f"--policy.encoder.slow_fast.fast_gradient={option}")
        torch.manual_seed(0)
        policy = make_policy(config, make_reference(source))
        features = policy(observation).grounding.boxes
        seen = policy.encoder.backbone.stem.get_parameter("model.layer2.0.conv1.weight")
        found.append((features, torch.autograd.grad(features.sum(), seen)[0]))
    (both, with_fast), (once, without) = found
    close(once, both)
    assert not torch.allclose(with_fast, without, rtol=1e-2)
    parts = dict(policy.named_parameters())
    assert not parts["encoder.backbone.stem.model.layer1.0.conv1.weight"].requires_grad  # as published
    assert "encoder.backbone.stem.model.bn1.weight" not in parts
