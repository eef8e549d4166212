import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from vla_policy import torchvision_shim
from vla_policy.torchvision_shim import operators_are_missing, torchvision_build


def run_python(code: str, *path: Path) -> str:
    """What `code` prints in a fresh interpreter that looks into these folders first; warnings are errors there."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), *filter(None, sys.path)])}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def pretend_torchvision(folder: Path, build: str) -> None:
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text("")
    (folder / "torchvision" / "version.py").write_text(f"__version__ = '{build}'\ngit_version = 'abc'\n")
    info = folder / "torchvision-0.28.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n")


SHIM = "import sys, torch, vla_policy.torchvision_shim as shim\n"
LOOK = "print(shim.torchvision_build(), shim.LIBRARY is not None, hasattr(torch.ops.torchvision, 'nms'))"


def test_timm_and_transformers_can_be_imported_after_it() -> None:
    models = "import timm, transformers\nfrom transformers import BertModel, CLIPTextModel, T5EncoderModel\n"
    assert run_python(SHIM + models + "timm.create_model('resnet18'); print('fine')") == "fine"


def test_a_healthy_torchvision_is_left_alone(tmp_path: Path) -> None:
    pretend_torchvision(tmp_path, "0.28.0+cpu")
    assert run_python(SHIM + LOOK + "\nassert 'torchvision' not in sys.modules", tmp_path) == "0.28.0+cpu False False"


def test_a_torchvision_that_is_loaded_already_is_left_alone(tmp_path: Path) -> None:
    pretend_torchvision(tmp_path, "0.28.0+cu130")
    assert run_python("import torchvision\n" + SHIM + LOOK, tmp_path) == "0.28.0+cu130 False False"


def test_a_build_for_cuda_gets_its_operators_without_being_loaded(tmp_path: Path) -> None:
    pretend_torchvision(tmp_path, "0.28.0+cu130")
    cpu_only = "import torch; torch.version.cuda = torch.version.hip = None\n"
    assert run_python(cpu_only + SHIM + LOOK, tmp_path) == "0.28.0+cu130 True True"
    if sys.platform == "linux":
        mapped = "import pathlib; print('torchvision/_C' in pathlib.Path('/proc/self/maps').read_text())"
        assert run_python(cpu_only + SHIM + mapped) == "False"


@pytest.mark.parametrize(
    ("build", "cuda", "hip", "missing"),
    [
        ("0.28.0+cu130", None, None, True),
        ("0.28.0+cu130", "13.0", None, False),
        ("0.28.0+rocm7.0", None, "7.0", False),
        ("0.28.0+cu130", None, "7.0", False),
        ("0.28.0+cpu", None, None, False),
        ("0.28.0", None, None, False),
        (None, None, None, False),
    ],
)
def test_only_a_cuda_build_beside_a_torch_without_cuda_lacks_them(
    build: str | None, cuda: str | None, hip: str | None, missing: bool
) -> None:
    assert operators_are_missing(build, cuda, hip) is missing


def test_no_torchvision_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(torchvision_shim.metadata, "distribution", absent)
    assert torchvision_build() is None
