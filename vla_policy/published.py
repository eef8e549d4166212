"""`vla import`: a published TubeDETR checkpoint as one of ours.

Their names and ours, side by side, are `RULES`; docs/tubedetr.md says which settings give their network. Two things are
not renamed alone: query, key and value matrices are one matrix there, and the bias of the keys, which softmax ignores,
is left out here.
"""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from configs.policy import PolicyConfig
from vla_policy.checkpoint import NOTHING, Checkpoint, Purpose
from vla_policy.contract import Shapes
from vla_policy.policy import VLAPolicy
from vla_policy.timm_stem import IMAGENET_MEAN, IMAGENET_STD
from vla_policy.tokenizer import TOKENIZERS

SHOWN = 5  # names in a message
NUMBERS = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)

LAYER = {"linear1": "feed.0", "linear2": "feed.2", "norm1": "norm_attention", "norm2": "norm_feed"}
RULES: tuple[tuple[str, str], ...] = (  # beginnings of names, theirs and ours; # is a number
    ("backbone.0.body.", "encoder.backbone.stem.model."),
    ("input_proj.", "encoder.embed."),
    ("transformer.encoder.layers.#.self_attn.", "encoder.slow.#.attention."),
    *((f"transformer.encoder.layers.#.{theirs}.", f"encoder.slow.#.{ours}.") for theirs, ours in LAYER.items()),
    ("transformer.fast_encoder.layers.0.self_attn.", "encoder.fast.over_time.layer.attention."),
    *((f"transformer.fast_encoder.layers.0.{a}.", f"encoder.fast.over_time.layer.{b}.") for a, b in LAYER.items()),
    ("transformer.fast_encoder.norm.", "encoder.fast.over_time.norm."),
    ("transformer.fast_encoder.", "encoder.fast.linear."),
    ("transformer.fast_residual.", "encoder.fast.join."),
    ("transformer.text_encoder.", "language.model."),
    ("transformer.resizer.fc.", "language.project."),
    ("transformer.resizer.layer_norm.", "language.norm."),
    ("query_embed.", "grounding.object."),
    ("transformer.decoder.layers.#.self_attn.", "grounding.blocks.#.time."),
    ("transformer.decoder.layers.#.cross_attn_image.", "grounding.blocks.#.space."),
    ("transformer.decoder.layers.#.linear1.", "grounding.blocks.#.feed.0."),
    ("transformer.decoder.layers.#.linear2.", "grounding.blocks.#.feed.2."),
    ("transformer.decoder.layers.#.norm1.", "grounding.blocks.#.norm_time."),
    ("transformer.decoder.layers.#.norm3.", "grounding.blocks.#.norm_space."),
    ("transformer.decoder.layers.#.norm4.", "grounding.blocks.#.norm_feed."),
    ("transformer.decoder.norm.", "grounding.norm."),
    ("bbox_embed.layers.0.", "grounding.box.0."),
    ("bbox_embed.layers.1.", "grounding.box.2."),
    ("bbox_embed.layers.2.", "grounding.box.4."),
    ("sted_embed.layers.0.", "grounding.when.hidden."),
    ("sted_embed.layers.1.", "grounding.when.out."),
)
FIXED = ("transformer.time_embed.te", "transformer.text_encoder.embeddings.position_ids")  # computed here
QUERIES = "grounding.object.weight"
# What such a file never holds: statistics of proprioception, of one camera its name, what pixels are normalised by.
OWN = ("normaliser.", "encoder.camera", "encoder.backbone.stem.mean", "encoder.backbone.stem.std")


@dataclass(frozen=True, kw_only=True)
class Taken:
    """How many weights of a policy came from a file; which of the policy's it lacks; which of the file's go nowhere."""

    count: int
    missing: tuple[str, ...]
    unknown: tuple[str, ...]


def read_published(path: Path) -> dict[str, Tensor]:
    """Weights by their published names, from a file of torch or of safetensors: the averaged ones where there are both.

    Raises:
        ValueError: no such file, or no weights in it.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give a published checkpoint, such as .pth or .safetensors")
    try:
        if path.suffix == ".safetensors":
            values: Any = load_file(path)
        else:
            # weights_only executes nothing; the options of the run that lie beside the weights are a plain record.
            with torch.serialization.safe_globals([argparse.Namespace]):
                values = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged files end in any kind
        raise ValueError(f"{path}: no checkpoint that can be read safely ({_reason(error)})") from None
    if isinstance(values, dict):
        inner = (values.get(name) for name in ("model_ema", "model"))
        values = next((found for found in inner if isinstance(found, dict) and found), values)
    found = values.items() if isinstance(values, dict) else ()
    weights = {name: value for name, value in found if isinstance(name, str) and isinstance(value, Tensor)}
    if not weights:
        raise ValueError(f"{path}: holds no weights, expected them by name, or below 'model_ema' or 'model'")
    for name, value in weights.items():
        if reason := _unusable(value):
            raise ValueError(f"{path}: {name!r} {reason}; take another copy")
    return weights


def _reason(error: Exception) -> str:
    """Why a file was not read, in a few words; torch's own advise to read it in the unsafe way."""
    if isinstance(error, pickle.UnpicklingError):
        called = re.search(r"GLOBAL ([\w.]+)", str(error))
        return f"it wants to run {called.group(1)}" if called else "it holds more than weights, or is damaged"
    words = "".join(c for c in " ".join(str(error).split()) if c.isprintable())
    return words[:120] or type(error).__name__


def _unusable(value: Tensor) -> str:
    """Why a tensor of somebody's file cannot be a weight, empty if it can."""
    if value.is_nested or value.dtype not in NUMBERS or value.layout != torch.strided or value.is_meta:
        return f"is {value.layout} {value.dtype} on {value.device}, expected an array of plain numbers"
    if value.untyped_storage().nbytes() < value.nbytes:  # one number, said to be very many
        return f"is {tuple(value.shape)}, of which the file does not hold all numbers"
    return "" if value.isfinite().all() else "has values that are not finite"


def renamed(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A published weight under our names: none if it has no place here, three if it is query, key and value in one.

    Raises:
        ValueError: it should be, and cannot.
    """
    for theirs, ours in RULES:
        found = re.match(re.escape(theirs).replace(r"\#", r"(\d+)"), name)
        if found is None:
            continue
        begin = ours.replace("#", found.group(1)) if found.groups() else ours
        rest = name[found.end() :]
        if rest in ("in_proj_weight", "in_proj_bias"):
            kind = rest.removeprefix("in_proj_")
            if not value.ndim or len(value) % 3:
                raise ValueError(f"{name!r} is {tuple(value.shape)}, expected query, key and value, of one size")
            for part, third in zip("qkv", value.chunk(3), strict=True):
                if (part, kind) != ("k", "bias"):
                    yield f"{begin}{part}.{kind}", third
        else:
            rest = rest.replace("out_proj.", "out.")
            yield begin + rest, value.flatten(1) if theirs == "input_proj." and value.ndim > 1 else value
        return


def take_published(policy: VLAPolicy, weights: Mapping[str, Tensor]) -> Taken:
    """Put published weights into a policy of their form; what the file lacks stays as it is.

    Raises:
        ValueError: a weight has another shape, so that the policy has other settings.
    """
    state = policy.state_dict()
    taken: set[str] = set()
    unknown = []
    for name, value in weights.items():
        if name in FIXED or name.endswith(".num_batches_tracked"):
            continue
        places = [(ours, part) for ours, part in renamed(name, value) if ours in state]
        if not places:
            unknown.append(name)
        for ours, part in places:
            if ours == QUERIES and part.ndim == 2:
                part = part[: len(state[ours])]  # of MDETR's hundred the first, as the published code has it
            if state[ours].shape != part.shape:
                got, expected = tuple(part.shape), tuple(state[ours].shape)
                raise ValueError(f"{name!r} is {got}, expected {expected}; give the --policy settings of its network")
            state[ours].copy_(part)
            taken.add(ours)
    missing = [n for n in state if n not in taken and not n.startswith(OWN) and not n.endswith("num_batches_tracked")]
    stem = policy.encoder.backbone.stem
    with torch.no_grad():
        for buffer, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            stem.get_buffer(buffer).copy_(torch.tensor(values).view(1, 3, 1, 1))
    return Taken(count=len(taken), missing=tuple(missing), unknown=tuple(unknown))


def import_published(
    path: Path, config: PolicyConfig, *, size: int, control_hz: float, partial: bool = False
) -> tuple[Checkpoint, Taken]:
    """A published checkpoint with the policy that it belongs to; see `vla import --help` for the arguments.

    Raises:
        ValueError: the file cannot be read, is of a network with other settings, or, unless `partial`, lacks weights or
            has some that have no place; the message names them.
    """
    if config.encoder.backbone.name == "small" or config.language.name != "pretrained" or config.grounding.extras:
        raise ValueError("policy settings are not those of TubeDETR; begin with --config tubedetr")
    weights = read_published(path)
    # The file has the backbone's weights: no hub need be asked for others.
    backbone = replace(config.encoder.backbone, timm=replace(config.encoder.backbone.timm, weights=""))
    # Frames come at the rate that it was trained at: every one is read.
    config = replace(config, encoder=replace(config.encoder, backbone=backbone), frame_stride=1)
    tokenizer = TOKENIZERS[config.language.name].make(config.language, ())
    shapes = Shapes(frames=config.frames, cameras=1, size=size, proprioception=1, actions=1, vocabulary=tokenizer.size)
    policy = VLAPolicy(config, shapes)
    policy.normaliser.set_statistics(torch.zeros(1), torch.ones(1))
    try:
        taken = take_published(policy, weights)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not taken.count:
        raise ValueError(f"{path}: none of its {len(weights)} weights is TubeDETR's, such as {some_of(weights)}")
    if not partial and (taken.missing or taken.unknown):
        lacks = f"lacks {some_of(taken.missing)}" if taken.missing else ""
        more = f"has {some_of(taken.unknown)}, which have no place" if taken.unknown else ""
        raise ValueError(
            f"{path}: {' and '.join(filter(None, [lacks, more]))}; give the --policy settings of its network, or "
            "--partial to take what fits"
        )
    purpose = Purpose(tasks=("video",), action_names=NOTHING, agent_pos_names=NOTHING, control_hz=control_hz)
    origin: dict[str, Any] = {"imported": path.name, "missing": taken.missing, "unknown": taken.unknown}
    return Checkpoint(policy.eval(), tokenizer, purpose, origin), taken


def some_of(names: Iterable[str]) -> str:
    """The first few of many names."""
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(map(repr, listed[:SHOWN])) + more
