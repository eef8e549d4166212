"""Lets timm and transformers be imported where torchvision is a CUDA build and torch is not: import this module first.

torchvision for CUDA cannot load its operators beside a CPU-only torch, and `import torchvision` then fails with
"operator torchvision::nms does not exist" (pytorch/vision #9085). Its Python code asks for two operators by name while
it is imported; declaring them is enough for all that needs no operator. Calling one still fails, with a clear message.

The shared object is never loaded to find out: an operator that is declared twice aborts the process.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

import torch

OPERATORS = ("nms", "qnms")
SCHEMA = "{}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def torchvision_build() -> str | None:
    """The installed torchvision's version with its build tag, such as "0.28.0+cu130"; None without torchvision.

    The package index drops the tag from the metadata, so it is read from the version file as text, unexecuted.
    """
    try:
        package = metadata.distribution("torchvision")
    except metadata.PackageNotFoundError:
        return None
    file = Path(str(package.locate_file("torchvision/version.py")))
    written = file.read_text() if file.is_file() else ""
    found = re.search(r"^__version__ = ['\"](.+?)['\"]", written, re.MULTILINE)
    return found[1] if found else package.version


def operators_are_missing(build: str | None, cuda: str | None, hip: str | None) -> bool:
    """Whether a torch without CUDA and HIP meets a torchvision built for CUDA."""
    return build is not None and "+cu" in build and cuda is None and hip is None


def declare_operators() -> torch.library.Library | None:
    """Declares the operators where they are missing. They last as long as the library that is returned."""
    if "torchvision" in sys.modules or not operators_are_missing(
        torchvision_build(), torch.version.cuda, torch.version.hip
    ):
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in OPERATORS:
        library.define(SCHEMA.format(name))
    return library


LIBRARY = declare_operators()
