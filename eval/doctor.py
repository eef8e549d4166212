"""`vla doctor`: looks at this machine, measures how fast it draws, and says what to do about each problem found."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

from configs.options import parse, plain_parser

Status = Literal["ok", "warn", "fail"]

PROJECT: Final = "vla_policy"
DEFAULT_TASK: Final = "vla/Track-v0"
LIBRARIES: Final = ("transformers", "timm", "stable_baselines3")
OLDEST_PYTHON: Final = (3, 11)

RENDER_SECONDS = 1.0
SLOW_STEPS_PER_SECOND = 150.0  # below, demonstrations take longer than training on them
LITTLE_DISK, TOO_LITTLE_DISK = 10e9, 1e9  # bytes; demonstrations are stored uncompressed

CPU_INFO = Path("/proc/cpuinfo")
REINSTALL = "run make setup; if that changes nothing: make clean setup"


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was looked at, what was found, and what to do about it (empty where nothing is to be done)."""

    name: str
    status: Status
    found: str
    advice: str = ""

    def __post_init__(self) -> None:
        assert self.advice or self.status == "ok", f"{self.name}: {self.status} without advice"


def main(arguments: list[str]) -> int:
    """Prints one row per check as each is done, then the verdict. The exit code is 1 if anything fails, else 0."""
    parse(plain_parser("doctor", tasks=False), arguments)
    done = []
    for check in examine():
        print(format_check(check), flush=True)
        done.append(check)
    print(verdict(done))
    return int(any(check.status == "fail" for check in done))


def examine(folder: Path | None = None, render_seconds: float = RENDER_SECONDS) -> Iterator[Check]:
    """All checks, each made when it is asked for; `folder` (default: the current one) is where runs would go."""
    folder = folder or Path.cwd()
    gpu = has_nvidia_gpu()
    yield _attempt("Python", check_python, "use Python 3.11 to 3.13")
    yield _attempt("packages", check_packages, REINSTALL)
    yield _attempt("torch", check_torch, REINSTALL)
    yield _attempt("bfloat16", check_bfloat16, REINSTALL)
    yield _attempt("GPU", partial(check_gpu, gpu), REINSTALL)
    yield _attempt("OpenGL", partial(check_gl, gpu), _gl_advice())
    yield _attempt("MuJoCo", check_mujoco, REINSTALL)
    yield _attempt("drawing", partial(check_drawing, render_seconds), "see OpenGL above; then run vla doctor again")
    for library in LIBRARIES:
        yield _attempt(library, partial(check_library, library), REINSTALL)
    yield _attempt("disk", partial(check_disk, folder), "check that the folder exists and its disk is mounted")
    yield _attempt("folder", partial(check_folder, folder), "run vla in a folder that you may write to")


def format_check(check: Check) -> str:
    """One row, and the advice under it."""
    row = f"{check.status:<5}  {check.name:<18}  {check.found}"
    return f"{row}\n{'':<27}-> {check.advice}" if check.advice else row


def verdict(checks: Iterable[Check]) -> str:
    statuses = [check.status for check in checks]
    failures, warnings = statuses.count("fail"), statuses.count("warn")
    if failures:
        return (
            f"\n{failures} of {len(statuses)} checks failed ({warnings} more to look at): vla will not work as it is."
        )
    if warnings:
        return f"\nvla works here; {warnings} of {len(statuses)} checks could be better."
    return f"\nAll {len(statuses)} checks are good."


def check_python(version: tuple[int, int, int] | None = None) -> Check:
    version = version or sys.version_info[:3]
    found = f"{'.'.join(map(str, version))} at {sys.executable}"
    if version < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return Check(
            name="Python", status="fail", found=found, advice=f"install Python {wanted} or newer, then make setup"
        )
    return Check(name="Python", status="ok", found=found)


def check_packages(project: str = PROJECT) -> Check:
    """Whether the project is installed and every package lies in its declared range."""
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(line) for line in metadata.requires(project) or ()]
    except metadata.PackageNotFoundError:
        return Check(name="packages", status="fail", found=f"{project} is not installed", advice="run make setup")
    needed = [each for each in declared if each.marker is None or each.marker.evaluate({"extra": ""})]
    wrong = []
    for each in needed:
        try:
            version = metadata.version(each.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{each.name} is missing")
            continue
        if not each.specifier.contains(version, prereleases=True):
            wrong.append(f"{each.name} {version} is not {each.specifier}")
    if wrong:
        return Check(name="packages", status="fail", found="; ".join(wrong), advice=REINSTALL)
    return Check(name="packages", status="ok", found=f"{len(needed)} packages, all in their declared ranges")


def check_torch(threads: int | None = None, cores: int | None = None) -> Check:
    import torch

    from envs.cores import usable_cores

    threads, cores = threads or torch.get_num_threads(), cores or usable_cores()
    found = f"{torch.__version__}, {threads} threads on {cores} usable cores, {torch.backends.cpu.get_cpu_capability()}"
    if threads > cores:
        advice = f"threads wait for each other: set OMP_NUM_THREADS={cores}"
        return Check(name="torch", status="warn", found=found, advice=advice)
    if threads == 1 < cores:
        return Check(name="torch", status="warn", found=found, advice="training uses one core: unset OMP_NUM_THREADS")
    return Check(name="torch", status="ok", found=found)


def check_bfloat16(flags: frozenset[str] | None = None) -> Check:
    """Whether this CPU computes in bfloat16 or only emulates it; nothing depends on it, hence never a warning."""
    flags = cpu_flags() if flags is None else flags
    native = sorted(flags & {"amx_bf16", "avx512_bf16", "avx_ne_convert", "bf16"})
    found = f"CPU computes in it ({', '.join(native)})" if native else "CPU only emulates it; float32 is faster here"
    return Check(name="bfloat16", status="ok", found=found)


def check_gpu(gpu: bool) -> Check:
    import torch

    if torch.cuda.is_available():
        each = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
        found = ", ".join(f"{device.name} {device.total_memory / 2**30:.0f} GiB" for device in each)
        return Check(name="GPU", status="ok", found=f"{found}, CUDA {torch.version.cuda}")
    if gpu and torch.version.cuda is None:
        advice = "install the CUDA build: make clean setup"
        return Check(name="GPU", status="warn", found="there is one, but this torch is a CPU build", advice=advice)
    if gpu:
        found = f"there is one, but torch (CUDA {torch.version.cuda}) cannot use it"
        advice = "run nvidia-smi: the driver may be older than that CUDA, or CUDA_VISIBLE_DEVICES may hide the device"
        return Check(name="GPU", status="warn", found=found, advice=advice)
    return Check(name="GPU", status="ok", found="none; the default configurations are made for the CPU")


def check_gl(gpu: bool) -> Check:
    """Chooses the backend as every command does, and asks a small context of it who draws."""
    from envs.gl import choose_gl_backend, current_renderer

    backend = choose_gl_backend()
    import mujoco  # only now: it binds the backend when it is imported

    context = mujoco.GLContext(16, 16)
    try:
        context.make_current()
        renderer = current_renderer()
    finally:
        context.free()
    found = f"{backend}: {renderer}"
    if gpu and any(word in renderer.lower() for word in ("llvmpipe", "softpipe", "swrast")):
        advice = (
            "the GPU could draw: install its driver's EGL (libnvidia-gl), in containers NVIDIA_DRIVER_CAPABILITIES=all"
        )
        return Check(name="OpenGL", status="warn", found=f"{found}, in software", advice=advice)
    return Check(name="OpenGL", status="ok", found=found)


def check_mujoco(version: str | None = None) -> Check:
    import mujoco

    version = version or mujoco.__version__
    if version == "4.0.0":
        advice = (
            "its Newton solver has a bug with sparse Jacobians; our scenes avoid them, for others pick another version"
        )
        return Check(name="MuJoCo", status="warn", found=version, advice=advice)
    return Check(name="MuJoCo", status="ok", found=version)


def check_drawing(seconds: float, task: str = DEFAULT_TASK) -> Check:
    """For `seconds` each: steps the default task with random actions, and draws pictures of one camera alone."""
    import gymnasium

    from envs.tabletop.specs import register
    from training.collect_bench import raw_frames_per_second

    register()
    env = gymnasium.make(task)
    bare: Any = env.unwrapped
    try:
        env.action_space.seed(0)
        env.reset(seed=0)
        frame_rate = raw_frames_per_second(bare, seconds)
        steps, start = 0, time.perf_counter()
        while steps == 0 or time.perf_counter() - start < seconds:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            steps += 1
            if terminated or truncated:
                env.reset()
        step_rate = steps / (time.perf_counter() - start)
    finally:
        env.close()
    found = (
        f"{frame_rate:.0f} raw frames/s (one camera, {bare.size} px, nothing else); "
        f"{step_rate:.0f} steps/s of {task} with physics and labelled pictures of {' and '.join(bare.cameras)}; "
        f"LP_NUM_THREADS={os.environ.get('LP_NUM_THREADS')}"
    )
    if step_rate < SLOW_STEPS_PER_SECOND:
        advice = "collecting and evaluating will take long: stop what else runs here, or unset LP_NUM_THREADS"
        return Check(name="drawing", status="warn", found=found, advice=advice)
    return Check(name="drawing", status="ok", found=found)


def check_library(name: str) -> Check:
    """Whether a library that only some configurations or tests need can be imported."""
    if name in ("timm", "transformers"):  # they import torchvision, which a CUDA build beside a CPU torch breaks
        importlib.import_module("vla_policy.torchvision_shim")
    try:
        module = importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        found = _first_line(error)
        return Check(name=name, status="warn", found=found, advice=f"configurations that use {name} fail; {REINSTALL}")
    return Check(name=name, status="ok", found=str(module.__version__))


def check_disk(folder: Path, free: float | None = None) -> Check:
    free = shutil.disk_usage(folder).free if free is None else free
    found = f"{free / 1e9:.0f} GB free for {folder}"
    if free < LITTLE_DISK:
        status: Status = "fail" if free < TOO_LITTLE_DISK else "warn"
        return Check(name="disk", status=status, found=found, advice="free some space, or write elsewhere with --out")
    return Check(name="disk", status="ok", found=found)


def check_folder(folder: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        found = f"cannot write to {folder}: {error.strerror}"
        return Check(name="folder", status="fail", found=found, advice="run vla in a folder that you may write to")
    return Check(name="folder", status="ok", found=f"{folder} can be written to")


def has_nvidia_gpu() -> bool:
    """Whether a driver shows a card, which is what make setup goes by; torch may still be unable to use it."""
    return shutil.which("nvidia-smi") is not None and any(map(os.path.exists, ("/dev/nvidiactl", "/dev/dxg")))


def cpu_flags(cpu_info: Path = CPU_INFO) -> frozenset[str]:
    """The features that the kernel lists for the first core ("flags" on x86, "Features" on Arm)."""
    for line in cpu_info.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _gl_advice() -> str:
    from envs.gl import APT_PACKAGES

    asked = os.environ.get("MUJOCO_GL")
    install = f"sudo apt-get install -y {' '.join(APT_PACKAGES)}"
    return f"unset MUJOCO_GL (it is {asked}) so that what works is chosen; or {install}" if asked else install


def _attempt(name: str, check: Callable[[], Check], advice: str) -> Check:
    """One check; where even looking fails, that is the finding."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - whatever is broken here is what the doctor was called for
        return Check(name=name, status="fail", found=f"{type(error).__name__}: {_first_line(error)}", advice=advice)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no message")
