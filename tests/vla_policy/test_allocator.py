import json
import subprocess
import sys

import pytest

from vla_policy import allocator
from vla_policy.allocator import keep_freed_memory

MEASURE = """
import gc, json, pathlib, torch
from vla_policy.allocator import keep_freed_memory

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

torch.set_num_threads(1)
took = keep_freed_memory() if {keep} else None
before = resident()
blocks = [torch.ones(4 * 2**20) for _ in range(8)]  # 16 MiB each
held = resident()
del blocks
gc.collect()
print(json.dumps({{"took": took, "grown": held - before, "kept": resident() - before}}))
"""


def measure(keep: bool) -> dict[str, float]:
    command = [sys.executable, "-c", MEASURE.format(keep=keep)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    assert found["grown"] > 120
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has these settings")
def test_freed_memory_stays_with_the_process() -> None:
    kept, returned = measure(keep=True), measure(keep=False)
    assert kept["took"] is True
    assert kept["kept"] > 120
    assert returned["kept"] < 20


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False


def test_a_c_library_without_the_settings_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory() is False
