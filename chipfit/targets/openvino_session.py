# SPDX-License-Identifier: Apache-2.0
"""OpenVINO models as timing subjects, and what its CPU plugin really executes."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from chipfit.errors import BadInput, MissingBackend, UnsupportedOp
from chipfit.targets.timing import without_slowest

#: Kinds of the plugin's operators that change layout or precision and compute nothing.
CONVERSIONS = frozenset({"Reorder", "Convert", "FakeQuantize"})
_TYPES = {
    "f32": "float32", "f16": "float16", "bf16": "bfloat16", "u8": "int8", "i8": "int8",
}  # fmt: skip


@dataclass(frozen=True)
class Executed:
    """One operator of the compiled model.

    Args:
        name: The plugin's.
        kind: The plugin's operator type.
        share: Of the time.
        precision: What it computes in.
        sources: Names of the file's operators that it does the work of.
    """

    name: str
    kind: str
    share: float
    precision: str
    sources: tuple[str, ...]

    @property
    def conversion(self) -> bool:
        """Whether it only converts: generated code may be nothing but a quantisation."""
        if self.kind in CONVERSIONS or not self.sources:
            return True
        converting = ("uantizeLinear", "Convert_", "Subtract_", "Multiply_")
        return self.kind in ("Subgraph", "Eltwise", "Transpose") and all(
            any(word in source for word in converting) for source in self.sources
        )


def openvino_version() -> str:
    """Return the version of the installed runtime.

    Raises:
        MissingBackend: ``openvino`` or ``onnx`` is not installed.
    """
    try:
        importlib.metadata.version("onnx")
        return importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingBackend(
            "the openvino-cpu target needs openvino and onnx", "pip install 'chipfit[openvino]'"
        ) from error


def open_run(data: bytes, threads: int = 1, place: str = "the network") -> Callable[[], None]:
    """Return a function that runs the ONNX model once, batch 1, on fixed random inputs.

    One infer request is used again and again, on input tensors that are set once.

    Args:
        data: The model file's bytes.
        threads: Threads within an operator.
        place: What the model is, for messages.

    Raises:
        UnsupportedOp: The runtime rejects the model.
        BadInput: An input is not of floats.
    """
    request = _request(_compile(data, threads, place), place)

    def run() -> None:
        request.infer()

    return run


def profile(
    data: bytes, threads: int = 1, runs: int | None = None, place: str = "the network"
) -> list[Executed]:
    """Return the operators that the CPU plugin executes, in order; their shares add up to 1.

    Times are the plugin's own counters, in whole microseconds: each is a mean over the runs, the
    slowest quarter left out. The counters slow the network down somewhat, so only shares count.

    Args:
        data: The model file's bytes.
        threads: Threads within an operator.
        runs: How many; by default about a second's worth, 8 to 40.
        place: What the model is, for messages.
    """
    model = _compile(data, threads, place, counters=True)
    request = _request(model, place)
    for _ in range(4):
        start = time.perf_counter()
        request.infer()
        once = time.perf_counter() - start
    times: dict[str, list[float]] = {}
    for _ in range(runs or min(40, max(8, round(1.0 / once)))):
        request.infer()
        for row in request.get_profiling_info():
            if str(row.status) == "Status.EXECUTED":
                times.setdefault(row.node_name, []).append(row.real_time.total_seconds())
    means = {name: without_slowest(values) for name, values in times.items()}
    whole = sum(means.values()) or 1.0
    leaving = _producers_of_outputs(data)
    return [
        _executed(operator, means[operator.get_friendly_name()] / whole, leaving)
        for operator in model.get_runtime_model().get_ordered_ops()
        if operator.get_friendly_name() in means
    ]


def _executed(operator: Any, share: float, leaving: dict[str, str]) -> Executed:
    facts = {key: str(getattr(v, "value", v)) for key, v in operator.get_rt_info().items()}
    name = operator.get_friendly_name()
    sources = tuple(leaving.get(s, s) for s in facts["originalLayersNames"].split(",") if s)
    precision = _TYPES.get(facts["runtimePrecision"], "")
    return Executed(name, facts["layerType"], share, precision, sources)


def _producers_of_outputs(data: bytes) -> dict[str, str]:
    """Return the operator that writes each output: the plugin calls it by the output's name."""
    import onnx

    graph = onnx.load_from_string(data).graph
    outputs = {value.name for value in graph.output}
    return {name: node.name for node in graph.node for name in node.output if name in outputs}


@lru_cache(maxsize=1)
def _core() -> Any:
    openvino_version()
    import openvino

    return openvino.Core()


def _compile(data: bytes, threads: int, place: str, counters: bool = False) -> Any:
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "f32",  # not bfloat16, which some processors would choose
        "PERF_COUNT": counters,
    }
    core = _core()
    try:
        model = core.read_model(data)
        shapes = {
            port.any_name: [1 if d.is_dynamic else d.get_length() for d in port.partial_shape]
            for port in model.inputs
        }
        model.reshape(shapes)
        return core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise UnsupportedOp(f"OpenVINO rejects {place}: {lines[-1] if lines else error}") from error


def _request(model: Any, place: str) -> Any:
    import openvino

    rng = np.random.default_rng(0)
    request = model.create_infer_request()
    for index, port in enumerate(model.inputs):
        if port.element_type != openvino.Type.f32:
            kind = port.element_type.get_type_name()
            raise BadInput(f"{place} has an input {port.any_name} of type {kind}, not float")
        values = rng.standard_normal(tuple(port.shape), dtype=np.float32)
        request.set_input_tensor(index, openvino.Tensor(values))
    return request
