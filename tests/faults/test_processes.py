"""A training in several processes: torchrun is killed, and the run goes on with another number of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from training.data.episodes import Dataset
from training.state import FILE
from vla_policy.checkpoint import load_checkpoint
from vla_policy.cli import main

Start = Callable[..., "subprocess.Popen[str]"]
WriteSmall = Callable[..., Dataset]
LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "vla_policy.cli")


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for ever for somebody to ask how."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.mark.long
def test_orphans_end_and_one_process_goes_on(
    start: Start, write_small: WriteSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_small("data", lengths=(40,) * 8)
    state = tmp_path / "run" / "state" / FILE
    command = ["train", "--config=debug", f"--data={tmp_path / 'data'}", f"--out={tmp_path / 'run'}"]
    command += ["--policy.width=16", "--policy.attention_heads=2", "--policy.encoder.backbone.channels=8"]
    command += ["--train.steps=400", "--train.save_every=5", "--train.threads=1"]
    launcher = start(sys.executable, *LAUNCH, *command)
    deadline = time.monotonic() + 300
    while not state.is_file():
        assert launcher.poll() is None, launcher.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ranks = [int(pid) for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()]
    assert len(ranks) >= 2
    os.kill(launcher.pid, signal.SIGKILL)
    while any(map(alive, ranks)):
        assert time.monotonic() < deadline
        time.sleep(0.1)

    assert main([*command, "--resume"]) == 0
    assert load_checkpoint(tmp_path / "run" / "checkpoint").provenance["steps"] == 400
