"""A timm model as the backbone's stem: its feature maps at one resolution, projected to the backbone's width.

B' pictures, C H W image, c channels.
"""

from __future__ import annotations

import difflib
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from configs.policy import BackboneConfig
from vla_policy.pretrained_source import one_line

HUB = "hub"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TimmStem(nn.Module):
    """Pictures `(B', 3, H, W)` float in [0, 1] → `(B', c, h, w)`.

    With no channels configured, these are the model's own. Pretrained models get pictures normalised as they were
    trained on. Frozen, the model also keeps its running statistics. A policy that is loaded takes its weights from the
    checkpoint and asks neither a file nor a hub.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: BackboneConfig, size: int, saved: Path | None = None) -> None:
        super().__init__()
        self.frozen = config.timm.frozen
        self.model = _build(config, size, hub=config.timm.weights == HUB and saved is None)
        if config.timm.weights not in ("", HUB) and saved is None:
            _load(self.model, config)
        pretrained = dict(getattr(self.model, "pretrained_cfg", None) or {}) if config.timm.weights else {}
        for name, default in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            value = pretrained.get(name, default) if config.timm.weights else {"mean": 0.5, "std": 0.25}[name]
            self.register_buffer(name, torch.as_tensor(value).expand(3).clone().view(1, 3, 1, 1))
        if config.timm.frozen_norm:
            from timm.layers.norm_act import freeze_batch_norm_2d

            self.model = freeze_batch_norm_2d(self.model)
        self.model.eval()  # to find the features' width must not move running statistics
        features = self._features(torch.zeros(2, 3, size, size))
        _leave_out(self.model, features, everything=self.frozen)
        _leave_parts_out(self.model, config.timm.frozen_parts)
        self.channels = config.channels or features.shape[1]
        self.project = nn.Conv2d(features.shape[1], config.channels, 1) if config.channels else nn.Identity()
        self.train()

    def forward(self, pictures: Tensor) -> Tensor:
        with torch.no_grad() if self.frozen else nullcontext():
            features = self._features((pictures - self.mean) / self.std)
        projected: Tensor = self.project(features.contiguous(memory_format=torch.channels_last))
        return projected

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    def _features(self, pictures: Tensor) -> Tensor:
        features: Tensor = self.model(pictures)[-1]
        return features


def _build(config: BackboneConfig, size: int, *, hub: bool) -> nn.Module:
    """The model's features at the level whose cells span `config.timm.stride` pixels, or the nearest coarser ones."""
    import vla_policy.torchvision_shim  # noqa: F401 - before timm, which imports torchvision

    import timm  # isort: skip

    if not timm.is_model(config.name):
        near = difflib.get_close_matches(config.name, timm.list_models(), 3)
        hint = f" (did you mean {', '.join(near)}?)" if near else ""
        raise ValueError(f"encoder.backbone.name {config.name!r} is neither 'small' nor a timm model{hint}")
    # Transformers are built for a picture size; convolutional models do not take the argument.
    refused: Exception | None = None
    for sized in ({"img_size": size}, {}):
        options: dict[str, Any] = {"features_only": True, **sized}
        try:
            whole: Any = timm.create_model(config.name, pretrained=False, **options)
            reductions = whole.feature_info.reduction()
            level = next((i for i, r in enumerate(reductions) if r >= config.timm.stride), len(reductions) - 1)
            model: nn.Module = timm.create_model(config.name, pretrained=hub, out_indices=(level,), **options)
        except TypeError as error:
            refused = error
        except (AssertionError, AttributeError, RuntimeError, ValueError, OSError) as error:
            where = ", with weights from the hub or its cache," if hub else ""
            raise ValueError(
                f"encoder.backbone.name {config.name!r}{where} gives no feature maps of {size}-pixel pictures "
                f"({one_line(error)}); choose another timm model"
            ) from None
        else:
            return model
    raise ValueError(
        f"encoder.backbone.name {config.name!r} gives no feature maps ({refused}); choose another timm model"
    )


def _load(model: nn.Module, config: BackboneConfig) -> None:
    """Weights of the whole timm model from a safetensors file: what the features do not need is left aside."""
    path = Path(config.timm.weights).expanduser()
    if not path.is_file():
        raise ValueError(
            f"encoder.backbone.timm.weights {config.timm.weights!r}: no such file; give a safetensors file, 'hub' or ''"
        )
    try:
        given = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"encoder.backbone.timm.weights {config.timm.weights!r}: no safetensors file ({one_line(error)})"
        ) from None
    own = model.state_dict()
    # Some feature extractors wrap the model, some rename its parts ("layer1.0" becomes "layer1_0").
    known = {_plain(name): name for name in own}
    matched = {known[_plain(name)]: value for name, value in given.items() if _plain(name) in known}
    lacking = sorted(set(own) - set(matched))
    if lacking:
        raise ValueError(
            f"encoder.backbone.timm.weights {config.timm.weights!r}: has no {lacking[0]!r} of {config.name}"
        )
    wrong = [name for name, value in matched.items() if value.shape != own[name].shape]
    if wrong:
        raise ValueError(
            f"encoder.backbone.timm.weights {config.timm.weights!r}: {wrong[0]!r} is {tuple(matched[wrong[0]].shape)}, "
            f"expected {tuple(own[wrong[0]].shape)}; weights must be of the same model at the same picture size"
        )
    model.load_state_dict(matched)


def _plain(name: str) -> str:
    return name.removeprefix("model.").replace(".", "_")


def _leave_out(model: nn.Module, features: Tensor, *, everything: bool) -> None:
    """Take out of training what the features do not depend on, such as a last norm; or everything."""
    parameters = list(model.parameters())
    reached = torch.autograd.grad(features.sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, reached, strict=True):
        found: Tensor | None = gradient  # torch's signature leaves the None out
        if everything or found is None:
            parameter.requires_grad_(False)


def _leave_parts_out(model: nn.Module, parts: tuple[str, ...]) -> None:
    """Take parts out of training, by the beginning of their names.

    Raises:
        ValueError: the model has no such part.
    """
    named = dict(model.named_parameters()) | dict(model.named_buffers())  # frozen norms have no parameters
    for part in parts:
        if not any(name.startswith(part) for name in named):
            known = ", ".join(dict.fromkeys(name.partition(".")[0] for name in named))
            raise ValueError(f"encoder.backbone.timm.frozen_parts {part!r} is no part of the model, which has {known}")
    for name, parameter in model.named_parameters():
        if name.startswith(parts):
            parameter.requires_grad_(False)
