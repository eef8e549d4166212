"""What a run computes on: device, precision, cores, and the other processes that `torchrun` may have started."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from configs.training import TrainConfig
from envs.cores import usable_cores
from training.error import TrainingError

# torch's own `module.to(memory_format=...)` takes one layout for all, and so cannot have 2D and 3D convolutions.
KERNEL_LAYOUT = {4: torch.channels_last, 5: torch.channels_last_3d}


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Device, precision and processes of a run."""
    # The library holds on to a process's first precision; another run in the process may want another.
    AcceleratorState._reset_state()
    return Accelerator(cpu=_wants_cpu(config), mixed_precision=_precision(config))


def place(module: nn.Module, device: torch.device) -> None:
    """Move to the device, kernels of convolutions channels last, which is three times as fast on a CPU."""
    module.to(device)
    for parameter in module.parameters():
        if parameter.ndim in KERNEL_LAYOUT:
            parameter.data = parameter.data.contiguous(memory_format=KERNEL_LAYOUT[parameter.ndim])


def share_of_cores() -> int:
    """Cores for this process, of which `torchrun` may have started several on this machine."""
    return max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def anywhere(flag: bool, accelerator: Accelerator) -> bool:
    """Whether the flag is set in any process: if one left the loop alone, the others would wait for it for ever."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum"))


def native_cpu_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; emulated it is slower than float32."""
    return any(
        bool(getattr(torch.cpu, probe, bool)()) for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


def _wants_cpu(config: TrainConfig) -> bool:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("train.device is 'cuda' but torch finds no GPU; use 'auto', and see `vla doctor`")
    return config.device == "cpu" or not torch.cuda.is_available()


def _precision(config: TrainConfig) -> str:
    if config.precision != "auto":
        return "bf16" if config.precision == "bfloat16" else "no"
    if not _wants_cpu(config):
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    return "bf16" if native_cpu_bfloat16() else "no"
