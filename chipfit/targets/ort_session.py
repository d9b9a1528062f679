# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime sessions as timing subjects, its profiler, and the reference network."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from chipfit.errors import BadInput, MissingBackend, UnsupportedOp
from chipfit.targets.timing import without_slowest

#: Raised whenever the reference changes, or what is measured with it; part of the fingerprint.
REFERENCE_VERSION = 2

#: An input of more elements is taken for damage.
_MOST_ELEMENTS = 1 << 28


def onnxruntime_version() -> str:
    """Return the version of the installed runtime.

    Raises:
        MissingBackend: ``onnxruntime`` or ``onnx`` is not installed.
    """
    try:
        importlib.metadata.version("onnx")
        return importlib.metadata.version("onnxruntime")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingBackend(
            "the onnxruntime-cpu target needs onnx and onnxruntime", "pip install 'chipfit[onnx]'"
        ) from error


def open_run(data: bytes, threads: int = 1, place: str = "the network") -> Callable[[], None]:
    """Return a function that runs the ONNX model once, batch 1, on fixed random inputs.

    Buffers are bound beforehand, so that a call is the model and nothing else. With one thread the
    work happens in the calling thread, without spinning workers, and CPU time is its true cost.

    Args:
        data: The model file's bytes.
        threads: Threads within an operator.
        place: What the model is, for messages.

    Raises:
        UnsupportedOp: The runtime rejects the model.
        BadInput: An input is of a type or shape that cannot be made up.
    """
    session = _open(data, threads, place)
    binding = session.io_binding()
    buffers = _inputs(session, place)
    for name, value in buffers.items():
        binding.bind_cpu_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")

    def run() -> None:
        session.run_with_iobinding(binding)

    run.__dict__["kept"] = buffers  # the binding holds addresses only
    return run


#: Operators that change layout or precision and compute nothing. A ``Transpose`` is one where the
#: runtime inserted it, and not the network.
CONVERSIONS = frozenset(
    {"ReorderInput", "ReorderOutput", "QuantizeLinear", "DequantizeLinear", "Cast"}
)
_TYPES = {"float": "float32", "float16": "float16", "uint8": "int8", "int8": "int8"}


@dataclass(frozen=True)
class Executed:
    """One operator of the optimised graph: its names, share of the time and arithmetic."""

    name: str
    kind: str
    share: float
    precision: str

    @property
    def conversion(self) -> bool:
        """Whether its kind only converts."""
        return self.kind in CONVERSIONS


def profile(
    data: bytes, threads: int = 1, runs: int | None = None, place: str = "the network"
) -> list[Executed]:
    """Return the operators of the optimised graph in order; their shares add up to 1.

    The profiler slows operators down somewhat, so only the shares mean anything. It counts whole
    microseconds: each share is a mean over the runs, the slowest quarter left out, normalised.

    Args:
        data: The model file's bytes.
        threads: Threads within an operator.
        runs: How many; by default about a second's worth, 8 to 40.
        place: What the model is, for messages.
    """
    with tempfile.TemporaryDirectory(prefix="chipfit-ort-") as folder:
        session = _open(data, threads, place, profile_prefix=str(Path(folder) / "profile"))
        inputs = _inputs(session, place)
        for _ in range(3):
            start = time.perf_counter()
            session.run(None, inputs)
            once = time.perf_counter() - start
        for _ in range(runs or min(40, max(8, round(1.0 / once)))):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[tuple[str, str], list[float]] = {}
    types: dict[tuple[str, str], str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            arguments = event["args"]
            key = (event["name"].removesuffix("_kernel_time"), arguments["op_name"])
            times.setdefault(key, []).append(float(event["dur"]))
            types[key] = _arithmetic(arguments)
    means = {key: without_slowest(values[3:]) for key, values in times.items()}
    whole = sum(means.values()) or 1.0
    return [Executed(*key, value / whole, types[key]) for key, value in means.items()]


def _arithmetic(arguments: dict[str, Any]) -> str:
    """Return the type that an operator computes in: bytes, where it reads or writes bytes."""
    ends = [
        _TYPES.get(next(iter(end[0])), "")
        for end in (arguments["input_type_shape"], arguments["output_type_shape"])
        if end and end[0]
    ]
    return "int8" if "int8" in ends else next(filter(None, reversed(ends)), "")


@lru_cache(maxsize=1)
def empty_bytes() -> bytes:
    """Return a network that does next to nothing: what it takes is the overhead of a call."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "empty",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@lru_cache(maxsize=1)
def reference_bytes() -> bytes:
    """Return the reference network: three inverted bottlenecks on 32 x 56 x 56, about 2 ms.

    Its mix of pointwise and depthwise convolutions reacts to clock and cache as subjects do.
    """
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights, tensor = [], [], "x"
    for i, (c_in, c_out, kernel, groups) in enumerate([(32, 96, 1, 1), (96, 96, 3, 96)] * 3):
        c_in = 96 if kernel == 1 and i else c_in
        shape = (c_out, c_in // groups, kernel, kernel)
        scale = np.sqrt(2.0 / (shape[1] * kernel * kernel))
        value = (rng.standard_normal(shape) * scale).astype(np.float32)
        weights.append(numpy_helper.from_array(value, f"w{i}"))
        pads = [kernel // 2] * 4
        nodes.append(
            helper.make_node("Conv", [tensor, f"w{i}"], [f"c{i}"], pads=pads, group=groups)
        )
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        tensor = f"r{i}"
    graph = helper.make_graph(
        nodes,
        "reference",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32, 56, 56])],
        [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, [1, 96, 56, 56])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _open(data: bytes, threads: int, place: str, profile_prefix: str = "") -> Any:
    onnxruntime_version()
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile_prefix:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    try:
        # On some errors the runtime prints to standard output, where results belong.
        with contextlib.redirect_stdout(sys.stderr):
            return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exception classes share no public base
        text = str(error).strip().splitlines()
        raise UnsupportedOp(
            f"ONNX Runtime rejects {place}: {text[0] if text else error}"
        ) from error


def _inputs(session: Any, place: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    buffers = {}
    for item in session.get_inputs():
        if item.type != "tensor(float)":
            raise BadInput(f"{place} has an input {item.name} of type {item.type}, not float")
        shape = [size if isinstance(size, int) else 1 for size in item.shape]
        if math.prod(shape) > _MOST_ELEMENTS or min(shape, default=1) < 0:
            raise BadInput(f"{place} has an input {item.name} of impossible shape {shape}")
        buffers[item.name] = rng.standard_normal(shape, dtype=np.float32)
    return buffers
