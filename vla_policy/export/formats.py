"""How graphs are written, and how what was written is run: ONNX, torch.export, OpenVINO. Each library loads when it is
needed; those of ONNX and OpenVINO are extras.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from vla_policy.export.graphs import Graph

Arrays = dict[str, np.ndarray]
Run = Callable[[Mapping[str, np.ndarray]], Arrays]  # inputs by name → outputs by name
BATCH = "batch"  # what the first axis of all inputs and outputs is called


@dataclass(frozen=True, kw_only=True)
class Format:
    """One way to write a graph.

    Args:
        suffix: of the file.
        write: a traced graph, with the names of its inputs and outputs, to a file.
        open: a file, and how many threads may work, → a function that runs it.
        needs: packages that it needs, and the extra that they belong to.
    """

    suffix: str
    write: Callable[[ExportedProgram, list[str], list[str], Path], None]
    open: Callable[[Path, int], Run]
    needs: tuple[str, ...] = ()
    extra: str = ""

    def check(self, name: str) -> None:
        """Refuse a format whose packages are not there, before anything is traced.

        Raises:
            ValueError: one is missing; the message says how to install it.
        """
        for package in self.needs:
            try:
                _library(package)
            except ImportError as error:
                raise ValueError(
                    f"--format {name} needs {package}, which cannot be loaded ({error}); "
                    f'run: pip install "vla_policy[{self.extra}]"'
                ) from None


def trace(graph: Graph, inputs: dict[str, Tensor]) -> tuple[ExportedProgram, dict[str, Tensor]]:
    """A graph as a program for any number of rows, and its outputs for the example.

    Args:
        inputs: an example of them.

    Raises:
        ValueError: it has a part that cannot be traced; the message says what torch makes of it.
    """
    with torch.no_grad():  # before it is traced: what is looked at once, such as whether there are statistics, was
        outputs = graph(**inputs)
    batch = Dim(BATCH, min=1)
    rows = {name: {0: batch} for name in inputs}
    try:
        with _unheard():
            return torch.export.export(graph, (), inputs, dynamic_shapes=rows, strict=False), outputs
    except MemoryError:
        raise
    except Exception as error:  # somebody's part may do anything, and torch raises anything
        raise ValueError(f"this policy cannot be exported, torch cannot trace it: {_first_line(error)}") from error


def _write_onnx(program: ExportedProgram, inputs: list[str], outputs: list[str], path: Path) -> None:
    try:
        with _unheard():
            made = torch.onnx.export(
                program,
                (),
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes={name: {0: BATCH} for name in inputs},
                dynamo=True,
                verbose=False,
            )
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise ValueError(f"this policy cannot be written as ONNX, try --format torch: {_first_line(error)}") from error
    assert made is not None
    made.save(path, external_data=False)


def _open_onnx(path: Path, threads: int) -> Run:
    onnxruntime = _library("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _write_torch(program: ExportedProgram, inputs: list[str], outputs: list[str], path: Path) -> None:
    with _unheard():
        torch.export.save(program, path)


def _open_torch(path: Path, threads: int) -> Run:
    with _unheard():
        module = torch.export.load(path).module()

    def run(inputs: Mapping[str, np.ndarray]) -> Arrays:
        with torch.no_grad():
            outputs = module(**{name: torch.from_numpy(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def _write_openvino(program: ExportedProgram, inputs: list[str], outputs: list[str], path: Path) -> None:
    openvino = _library("openvino")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "graph.onnx"
        _write_onnx(program, inputs, outputs, file)
        # By default it rounds weights to half precision.
        openvino.save_model(openvino.Core().read_model(file), path, compress_to_fp16=False)


def _open_openvino(path: Path, threads: int) -> Run:
    # By default it computes in bfloat16 where the processor can.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    model = _library("openvino").Core().compile_model(path, "CPU", settings)
    names = [output.get_any_name() for output in model.outputs]

    def run(inputs: Mapping[str, np.ndarray]) -> Arrays:
        outputs = model(dict(inputs))
        return {name: outputs[i] for i, name in enumerate(names)}

    return run


ONNX = ("onnx", "onnxscript", "onnxruntime")
FORMATS: dict[str, Format] = {
    "onnx": Format(suffix=".onnx", write=_write_onnx, open=_open_onnx, needs=ONNX, extra="onnx"),
    "torch": Format(suffix=".pt2", write=_write_torch, open=_open_torch),
    "openvino": Format(
        suffix=".xml", write=_write_openvino, open=_open_openvino, needs=(*ONNX[:2], "openvino"), extra="openvino"
    ),
}


def _library(name: str) -> Any:
    """A package by name. OpenVINO reports its first import to its makers, unless the package that does so is missing:
    here it is taken to be.
    """
    if name == "openvino":
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module(name)


@contextmanager
def _unheard() -> Iterator[None]:
    """Without torch's warnings to itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _first_line(error: BaseException) -> str:
    """What went wrong at the bottom of it, in a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
