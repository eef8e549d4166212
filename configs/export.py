"""Configuration of an export: a policy as files that other programs run without our code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from configs.checks import check_kinds, check_least


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What is written, and for whom.

    Args:
        format: "onnx" for ONNX Runtime and most others, "torch" for torch.export.load, "openvino" for OpenVINO.
        task: give actions in the order, units and bounds of this task; by default they lie in [-1, 1].
        execute: control steps to be executed of a chunk before the next decision, for whoever reads export.json; the
            whole chunk where it is shorter.
        samples: recorded observations on which --check compares what was written with the policy.
        threads: that a decision has there, the policy's and that of what was written alike.
    """

    format: Literal["onnx", "torch", "openvino"] = "onnx"
    task: str = ""
    execute: int = 2
    samples: int = 1000
    threads: int = 1

    def __post_init__(self) -> None:
        check_kinds("", self)
        check_least("", self, execute=1, samples=1, threads=1)
