import os
from dataclasses import replace

import pytest
import torch

from configs.training import TrainConfig
from training import device
from training.device import anywhere, make_accelerator, share_of_cores
from training.error import TrainingError


def test_a_gpu_that_is_not_there_is_refused(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match="'cuda' but torch finds no GPU"):
        make_accelerator(replace(config, device="cuda"))


@pytest.mark.parametrize(("native", "asked", "got"), [
    (True, "auto", "bf16"), (False, "auto", "no"), (True, "float32", "no"), (False, "bfloat16", "bf16"),
])  # fmt: skip
def test_precision_follows_the_hardware_unless_it_is_asked_for(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, native: bool, asked: str, got: str
) -> None:
    monkeypatch.setattr(device, "native_cpu_bfloat16", lambda: native)
    assert make_accelerator(replace(config, precision=asked)).mixed_precision == got  # type: ignore[arg-type]


def test_the_processes_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(device, "usable_cores", lambda: 8)
    assert share_of_cores() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert share_of_cores() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert share_of_cores() == 1


def test_a_single_process_decides_alone(config: TrainConfig) -> None:
    accelerator = make_accelerator(config)
    assert anywhere(True, accelerator)
    assert not anywhere(False, accelerator)
