from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from eval import doctor
from eval.doctor import Check

GOOD = Check(name="one", status="ok", found="fine")
POOR = Check(name="two", status="warn", found="slow", advice="hurry")
BAD = Check(name="three", status="fail", found="broken", advice="repair it")


def pretend_cuda(monkeypatch: pytest.MonkeyPatch, *, version: str | None, available: bool) -> None:
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)


def test_this_machine_has_no_failure(tmp_path: Path) -> None:
    checks = list(doctor.examine(tmp_path, render_seconds=0.05))
    assert [check for check in checks if check.status == "fail"] == []
    assert len({check.name for check in checks}) == len(checks)
    found = {check.name: check.found for check in checks}
    assert torch.__version__ in found["torch"]
    assert "raw frames/s (one camera, 64 px, nothing else)" in found["drawing"]
    assert "steps/s of vla/Track-v0 with physics and labelled pictures of front and wrist" in found["drawing"]
    assert ": " in found["OpenGL"]


@pytest.mark.parametrize(
    ("checks", "code", "words"),
    [
        ([GOOD], 0, "All 1 checks are good"),
        ([GOOD, POOR], 0, "vla works here; 1 of 2 checks could be better"),
        ([GOOD, POOR, BAD], 1, "1 of 3 checks failed (1 more to look at)"),
    ],
)
def test_exit_code_and_verdict(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    checks: list[Check],
    code: int,
    words: str,
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: iter(checks))
    assert doctor.main([]) == code
    printed = capsys.readouterr().out
    assert words in printed
    for check in checks:
        assert check.found in printed
        assert check.advice in printed


def test_rows_line_up() -> None:
    long, short = (
        doctor.format_check(Check(name=name, status="ok", found="HERE")) for name in ("stable_baselines3", "a")
    )
    assert long.index("HERE") == short.index("HERE")
    row, advice = doctor.format_check(BAD).splitlines()
    assert row.index("broken") == advice.index("->")


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def explode(*_: object) -> Check:
        raise OSError("driver went away\nlong story")

    monkeypatch.setattr(doctor, "check_gl", explode)
    monkeypatch.setattr(doctor, "check_drawing", explode)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    checks = {check.name: check for check in doctor.examine(tmp_path)}
    assert checks["OpenGL"].status == "fail"
    assert checks["OpenGL"].found == "OSError: driver went away"
    assert "unset MUJOCO_GL (it is egl)" in checks["OpenGL"].advice
    assert checks["folder"].status == "ok"  # what comes later is still looked at


def test_problem_without_advice_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError, match="warn without advice"):
        Check(name="x", status="warn", found="y")


@pytest.mark.parametrize(("version", "status"), [((3, 10, 14), "fail"), ((3, 11, 0), "ok"), ((3, 13, 2), "ok")])
def test_python(version: tuple[int, int, int], status: str) -> None:
    assert doctor.check_python(version).status == status


def test_packages_outside_their_range_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy<1", "torch>=2", "no-such-package-here>=1", "pytest<1; extra == 'test'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: wanted)
    check = doctor.check_packages()
    assert check.status == "fail"
    assert "numpy" in check.found
    assert "is not <1" in check.found
    assert "no-such-package-here is missing" in check.found
    assert "torch" not in check.found
    assert "pytest" not in check.found  # only an extra


def test_project_that_is_not_installed() -> None:
    check = doctor.check_packages("no-such-project-here")
    assert (check.status, check.advice) == ("fail", "run make setup")


@pytest.mark.parametrize(
    ("threads", "cores", "status", "advice"),
    [
        (2, 2, "ok", ""),
        (2, 4, "ok", ""),
        (1, 1, "ok", ""),
        (8, 2, "warn", "OMP_NUM_THREADS=2"),
        (1, 4, "warn", "unset"),
    ],
)
def test_threads(threads: int, cores: int, status: str, advice: str) -> None:
    check = doctor.check_torch(threads, cores)
    assert check.status == status
    assert advice in check.advice


@pytest.mark.parametrize(("flags", "words"), [({"avx2", "amx_bf16"}, "amx_bf16"), ({"avx2"}, "only emulates")])
def test_bfloat16(flags: set[str], words: str) -> None:
    check = doctor.check_bfloat16(frozenset(flags))
    assert check.status == "ok"
    assert words in check.found


@pytest.mark.parametrize(
    ("gpu", "version", "status", "words"),
    [
        (False, None, "ok", "none"),
        (False, "13.0", "ok", "none"),
        (True, None, "warn", "CPU build"),
        (True, "13.0", "warn", "cannot use it"),
    ],
)
def test_gpu_that_torch_cannot_use(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, version: str | None, status: str, words: str
) -> None:
    pretend_cuda(monkeypatch, version=version, available=False)
    check = doctor.check_gpu(gpu)
    assert check.status == status
    assert words in check.found


def test_gpu_that_torch_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch, version="13.0", available=True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    card = SimpleNamespace(name="Card", total_memory=24 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    check = doctor.check_gpu(gpu=True)
    assert (check.status, check.found) == ("ok", "Card 24 GiB, Card 24 GiB, CUDA 13.0")


def test_mujoco_with_the_solver_bug() -> None:
    assert doctor.check_mujoco("4.0.0").status == "warn"
    assert doctor.check_mujoco("3.11.0").status == "ok"


@pytest.mark.parametrize(("free", "status"), [(50e9, "ok"), (5e9, "warn"), (0.5e9, "fail")])
def test_disk(tmp_path: Path, free: float, status: str) -> None:
    check = doctor.check_disk(tmp_path, free)
    assert check.status == status
    assert str(tmp_path) in check.found


def test_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    assert doctor.check_folder(tmp_path).status == "ok"
    assert list(tmp_path.iterdir()) == []
    assert doctor.check_folder(tmp_path / "missing").status == "fail"


@pytest.mark.parametrize("text", ["processor : 0\nflags\t\t: fpu bf16 sse\n", "Features : fp bf16\n"])
def test_cpu_flags(tmp_path: Path, text: str) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    assert "bf16" in doctor.cpu_flags(file)
    file.write_text("processor : 0\n")
    assert doctor.cpu_flags(file) == frozenset()


def test_library_that_cannot_be_imported_is_a_warning() -> None:
    check = doctor.check_library("no_such_library_here")
    assert check.status == "warn"
    assert "no_such_library_here" in check.found
