"""How much memory a process may still take. Standard library only."""

from __future__ import annotations

import resource
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
STATUS = Path("/proc/self/status")
CGROUP = Path("/sys/fs/cgroup")  # a container's share of the memory


def available_memory(meminfo: Path = MEMINFO, cgroup: Path = CGROUP, status: Path = STATUS) -> int | None:
    """Bytes: what the machine has free, a container's limit leaves and `ulimit -v` allows; None if nobody says."""
    found = []
    if (free := _kilobytes(meminfo, "MemAvailable")) is not None:
        found.append(free)
    if (cgroup / "memory.max").is_file() and (most := (cgroup / "memory.max").read_text().strip()) != "max":
        # Pages of files that nobody uses are given back when memory is wanted.
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        used = int((cgroup / "memory.current").read_text()) - int(stat.get("inactive_file", 0))
        found.append(int(most) - used)
    if (limit := address_space()) is not None:
        found.append(limit - (_kilobytes(status, "VmSize") or 0))
    return max(0, min(found)) if found else None


def address_space() -> int | None:
    """Bytes that `ulimit -v` allows; None without a limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def _kilobytes(path: Path, name: str) -> int | None:
    if not path.is_file():
        return None
    for line in path.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None
