"""timm models as stems: for any picture size, pretrained from a file, frozen or trained, loaded without a file."""

import importlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from configs.policy import BackboneConfig, EncoderConfig, PolicyConfig, TimmConfig
from vla_policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vla_policy.contract import Shapes, fake_batch
from vla_policy.encoders import ENCODERS
from vla_policy.policy import VLAPolicy
from vla_policy.timm_stem import IMAGENET_MEAN, IMAGENET_STD, TimmStem

importlib.import_module("vla_policy.torchvision_shim")  # before timm
timm = importlib.import_module("timm")

SIZE = 64
MODELS = {"resnet10t": (16, 4), "mobilenetv4_conv_small_035": (16, 4), "vit_tiny_patch16_224": (4, 16)}


def config_of(name: str, **options: Any) -> BackboneConfig:
    return BackboneConfig(name=name, channels=8, layers=1, timm=TimmConfig(**options))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("timm") / "resnet10t.safetensors"
    save_file(timm.create_model("resnet10t", pretrained=False).state_dict(), path)
    return path


@pytest.mark.parametrize("backbone", MODELS)
def test_features_come_at_the_wanted_stride_or_the_nearest_coarser(backbone: str) -> None:
    side, stride = MODELS[backbone]
    stem = TimmStem(config_of(backbone), SIZE)
    features = stem(torch.rand(2, 3, SIZE, SIZE))
    assert features.shape == (2, 8, side, side)
    assert SIZE // side == stride
    features.square().sum().backward()
    trained = {name: p for name, p in stem.named_parameters() if p.requires_grad}
    assert trained
    assert all(p.grad is not None for p in trained.values())


def test_a_coarser_stride_gives_a_coarser_grid() -> None:
    assert TimmStem(config_of("resnet10t", stride=8), SIZE)(torch.rand(1, 3, SIZE, SIZE)).shape[-1] == SIZE // 8


def test_pretrained_weights_come_from_a_file_and_pictures_are_normalised_as_they_expect(weights: Path) -> None:
    stem = TimmStem(config_of("resnet10t", weights=str(weights)), SIZE).eval()
    torch.testing.assert_close(stem.mean.flatten(), torch.tensor(IMAGENET_MEAN))
    torch.testing.assert_close(stem.std.flatten(), torch.tensor(IMAGENET_STD))
    torch.manual_seed(5)
    whole = timm.create_model("resnet10t", pretrained=False).eval()
    pictures = torch.rand(2, 3, SIZE, SIZE)
    mean, std = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    seen = whole.maxpool(whole.act1(whole.bn1(whole.conv1((pictures - mean) / std))))
    expected = stem.project(whole.layer1(seen))
    torch.testing.assert_close(stem(pictures), expected)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_model_keeps_its_weights_and_statistics(frozen: bool, weights: Path) -> None:
    stem = TimmStem(config_of("resnet10t", weights=str(weights), frozen=frozen), SIZE)
    before = {name: value.clone() for name, value in stem.model.state_dict().items()}
    stem.train()(torch.rand(4, 3, SIZE, SIZE)).sum().backward()
    assert any(p.requires_grad for p in stem.model.parameters()) is not frozen
    moved = [name for name, value in stem.model.state_dict().items() if not torch.equal(value, before[name])]
    assert bool(moved) is not frozen  # batch normalisation's statistics


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_every_encoder_runs_on_one_and_its_checkpoint_needs_no_file(
    encoder: str, weights: Path, tmp_path: Path, small: PolicyConfig, as_checkpoint: Callable[[VLAPolicy], Checkpoint]
) -> None:
    copied = tmp_path / "weights.safetensors"
    copied.write_bytes(weights.read_bytes())
    shapes = Shapes(frames=3, cameras=1, size=SIZE, proprioception=4, actions=3, vocabulary=40)
    backbone = config_of("resnet10t", weights=str(copied))
    config = replace(small, encoder=EncoderConfig(name=encoder, backbone=backbone))  # type: ignore[arg-type]
    torch.manual_seed(0)
    policy = VLAPolicy(config, shapes)
    policy.normaliser.set_statistics(torch.zeros(4), torch.ones(4))
    batch = fake_batch(shapes, 2)
    loss, _ = policy.loss(batch)
    loss.backward()
    trained = [p for p in policy.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)
    save_checkpoint(as_checkpoint(policy), tmp_path / "checkpoint")
    copied.unlink()
    loaded = load_checkpoint(tmp_path / "checkpoint").policy
    assert torch.equal(loaded.act(batch.observation).action, policy.eval().act(batch.observation).action)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "resnet19"}, "'resnet19' is neither 'small' nor a timm model"),
        ({"name": "resnet10"}, r"nor a timm model \(did you mean resnet10t"),
        ({"name": "resnet10t", "weights": "nowhere.safetensors"}, "'nowhere.safetensors': no such file"),
        ({"name": "resnet10t", "weights": "{garbage}"}, "no safetensors file"),
        ({"name": "resnet18", "weights": "{weights}"}, "weights must be of the same model|has no"),
        ({"name": "vit_tiny_patch16_224", "weights": "{weights}"}, "has no 'model.blocks"),
    ],
)
def test_what_cannot_be_used_is_named(options: dict[str, str], words: str, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(b"nothing of the kind")
    filled = {k: v.format(weights=weights, garbage=tmp_path / "garbage") for k, v in options.items()}
    with pytest.raises(ValueError, match=re.compile(words)) as caught:
        TimmStem(config_of(**filled), SIZE)
    assert "\n" not in str(caught.value)
