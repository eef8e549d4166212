"""What a training needs of memory, before it takes any: a system that has too little ends the process without a word.

N steps of data, B batch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from configs.disk import in_words
from configs.encoder import SMALL
from configs.memory import available_memory
from configs.policy import PolicyConfig
from configs.training import TrainConfig
from training.data.episodes import Dataset
from training.error import TrainingError
from vla_policy.contract import Observation, Shapes
from vla_policy.policy import VLAPolicy

COPIES = 5  # of the weights: they, their gradient, two moments, the average
WORDS = 4  # of an instruction, at least
KEPT_ON_CPU = ("agent_pos", "action", "planned", "boxes", "visible")  # of a dataset, in memory; pictures stay on disk


def require_memory(
    policy_config: PolicyConfig,
    config: TrainConfig,
    datasets: Sequence[Dataset],
    *,
    actions: int,
    vocabulary: int,
    processes: int,
    device: torch.device,
    half: bool,
) -> None:
    """Refuse a training that cannot fit. What is counted is the least that it needs, so that none is refused in vain.

    Args:
        processes: that share the batch; those on this machine share its memory.
        half: whether activations have two bytes.

    Raises:
        TrainingError: it needs more than there is; the message says what to lower.
    """
    pixels = datasets[0].arrays["pixels"]
    shapes = Shapes(
        frames=policy_config.frames,
        cameras=len(policy_config.cameras),
        size=pixels.shape[2],
        proprioception=datasets[0].arrays["agent_pos"].shape[1],
        actions=actions,
        vocabulary=vocabulary,
    )
    batch = config.batch // processes
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    data = sum(d.arrays[name].nbytes for d in datasets for name in KEPT_ON_CPU if name in d.arrays)
    pictures = batch * shapes.frames * shapes.cameras * 3 * shapes.size**2
    network = network_bytes(policy_config, shapes, batch, half=half)
    if device.type == "cuda":
        _compare(network + pictures, torch.cuda.mem_get_info(device)[0], "GPU memory", policy_config, config)
        network = 0
    _compare(local * (data + pictures + network), available_memory(), "memory", policy_config, config)


def network_bytes(config: PolicyConfig, shapes: Shapes, batch: int, *, half: bool = False) -> int:
    """What the weights and one step's activations take, found by a forward pass on tensors without content. Of
    pretrained parts, which come with their own sizes, nothing is counted.
    """
    if config.language.name == "pretrained" or config.encoder.backbone.name != SMALL:
        return 0
    meta = torch.device("meta")
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    try:
        with meta:
            policy = VLAPolicy(config, shapes).train()
            policy.normaliser._checked = True  # it holds no statistics to look at
            observation = Observation(
                frames=torch.empty(
                    (batch, shapes.frames, shapes.cameras, 3, shapes.size, shapes.size), dtype=torch.uint8
                ),
                agent_pos=torch.empty(batch, shapes.frames, shapes.proprioception),
                tokens=torch.empty((batch, WORDS), dtype=torch.int64),
                token_mask=torch.empty((batch, WORDS), dtype=torch.bool),
            )
            with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                policy(observation)
    except (NotImplementedError, RuntimeError):  # a part that needs content: then only what is known counts
        return 0
    weights = sum(parameter.nbytes for parameter in policy.parameters())
    return COPIES * weights + (kept // 2 if half else kept)


def _compare(needed: int, there: int | None, what: str, policy: PolicyConfig, config: TrainConfig) -> None:
    if there is None or needed <= there:
        return
    raise TrainingError(
        f"this training needs at least {in_words(needed)} of {what}, {in_words(there)} are available; lower "
        f"train.batch {config.batch}, policy.frames {policy.frames} or policy.width {policy.width}, or take smaller "
        "pictures (collect.size)"
    )
