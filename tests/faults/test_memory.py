"""Too little memory: one line that says how much is needed and what to lower, before anything is taken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from configs.memory import available_memory
from training.data.episodes import Dataset
from vla_policy.cli import main

WriteSmall = Callable[..., Dataset]
GIGABYTE = 1_000_000_000


def limited(environment: dict[str, str], kilobytes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = f'ulimit -v {kilobytes}; exec {sys.executable} -m vla_policy.cli "$@"'
    return subprocess.run(
        ["bash", "-c", code, "bash", *arguments], env=environment, capture_output=True, text=True, timeout=900
    )


@pytest.mark.parametrize("command", ["train", "eval", "collect", "demo", "rollout", "bench"])
def test_an_address_space_that_is_too_small(environment: dict[str, str], command: str) -> None:
    done = limited(environment, 1_000_000, command)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"vla: `vla {command}` needs 2 GB of address space or more, 1.02 GB are allowed; raise the")


@pytest.mark.long
def test_an_address_space_that_is_just_enough(environment: dict[str, str], write_small: WriteSmall) -> None:
    data = write_small("data", lengths=(40,) * 4).path
    common = ["--config", "debug", "--data", str(data), "--out", str(data.parent / "run"), "--train.threads", "1"]
    done = limited(environment, 2_000_000, "train", *common)
    assert done.returncode == 0, done.stderr
    assert limited(environment, 500_000, "tasks").returncode == 0


def test_a_training_that_cannot_fit_is_refused(
    write_small: WriteSmall, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_small("data")
    common = ["train", "--config", "debug", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    assert main([*common, "--train.batch", "64", "--policy.frames", "20000"]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "this training needs at least" in line
    assert "of memory, " in line
    assert "lower train.batch 64, policy.frames 20000 or policy.width" in line
    assert not (tmp_path / "run").exists()


def test_the_estimate_is_what_a_step_takes() -> None:
    """Saved activations as torch counts them on a real step."""
    import torch

    from configs.policy import PolicyConfig
    from training.memory import COPIES, network_bytes
    from vla_policy.contract import Shapes, fake_batch
    from vla_policy.policy import VLAPolicy

    config = PolicyConfig(width=16, frames=2)
    shapes = Shapes(frames=2, cameras=1, size=32, proprioception=3, actions=2, vocabulary=20)
    policy = VLAPolicy(config, shapes).train()
    policy.normaliser.set_statistics(torch.zeros(3), torch.ones(3))
    kept = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        policy(fake_batch(shapes, config.head.chunk, batch=8, words=4).observation)
    weights = sum(parameter.nbytes for parameter in policy.parameters())
    assert network_bytes(config, shapes, 8) == pytest.approx(COPIES * weights + kept, rel=0.02)
    wider = replace(config, frames=20)
    assert network_bytes(wider, replace(shapes, frames=20), 8) > 3 * network_bytes(config, shapes, 8)


def test_what_limits_the_memory(tmp_path: Path) -> None:
    meminfo, status = tmp_path / "meminfo", tmp_path / "status"
    meminfo.write_text("MemTotal: 9000000 kB\nMemAvailable: 4000000 kB\n")
    status.write_text("VmSize: 1000 kB\n")
    assert available_memory(meminfo, tmp_path, status) == 4_000_000 * 1024
    for name, text in (
        ("memory.max", f"{3 * GIGABYTE}\n"),
        ("memory.current", f"{2 * GIGABYTE}\n"),
        ("memory.stat", f"anon 5\ninactive_file {GIGABYTE}\n"),
    ):
        (tmp_path / name).write_text(text)
    assert available_memory(meminfo, tmp_path, status) == 2 * GIGABYTE
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(meminfo, tmp_path, status) == 4_000_000 * 1024
