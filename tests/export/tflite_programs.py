# SPDX-License-Identifier: Apache-2.0
"""Small programs built by hand, and the interpreters that run them, for the export tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from chipfit.export.interpreter import dequantise_output, quantise_input
from chipfit.export.tflite import TFLiteFile, calibrate, to_tflite
from chipfit.graph.execute import WorkloadModule, synthetic_parameters
from chipfit.graph.op import Shape, make_op
from chipfit.graph.workload import Node, Program, Workload


class Builder:
    """Collects nodes ``n0, n1, ...`` that write ``t0, t1, ...``."""

    def __init__(self, *inputs: Shape) -> None:
        self.shapes: dict[str, Shape] = {f"x{i}": shape for i, shape in enumerate(inputs)}
        self.inputs = tuple(self.shapes)
        self.nodes: list[Node] = []
        self.constants: dict[str, torch.Tensor] = {}

    def constant(self, value: torch.Tensor) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name], self.shapes[name] = value, tuple(value.shape)
        return name

    def op(self, kind: str, inputs: str | list[str], output: Shape, **attrs: Any) -> str:
        names = [inputs] if isinstance(inputs, str) else inputs
        constants = [i for i, name in enumerate(names) if name in self.constants]
        op = make_op(kind, [self.shapes[n] for n in names], output, constants=constants, **attrs)
        index = len(self.nodes)
        self.nodes.append(Node(f"n{index}", op, tuple(names), f"t{index}"))
        self.shapes[f"t{index}"] = output
        return f"t{index}"

    def conv(
        self, x: str, channels: int, kernel: int = 3, stride: int = 1, padding: Any = None,
        groups: int = 1, activation: str = "none", dilation: int = 1,
    ) -> str:  # fmt: skip
        n, _, h, w = self.shapes[x]
        span = (kernel - 1) * dilation
        sides = padding if padding is not None else (span // 2,) * 4
        out_h = (h + sides[0] + sides[1] - span - 1) // stride + 1
        out_w = (w + sides[2] + sides[3] - span - 1) // stride + 1
        return self.op(
            "conv2d", x, (n, channels, out_h, out_w), kernel=(kernel, kernel),
            stride=(stride, stride), padding=sides, dilation=(dilation, dilation), groups=groups,
            bias=True, activation=activation,
        )  # fmt: skip

    def build(self, *outputs: str) -> Program:
        names = outputs or (f"t{len(self.nodes) - 1}",)
        load = Workload(
            tuple(self.nodes), self.inputs, names, self.shapes, frozenset(self.constants)
        )
        drawn = dict(synthetic_parameters(load).parameters)
        return Program(load, drawn | {k: {"value": v} for k, v in self.constants.items()})


def batch(program: Program, count: int = 4, seed: int = 0) -> list[torch.Tensor]:
    """Return ``count`` random inputs for every input of ``program``."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [program.workload.shapes[name] for name in program.workload.inputs]
    return [torch.randn(count, *shape[1:], generator=generator) for shape in shapes]


def quantised(program: Program, method: str = "minmax") -> tuple[TFLiteFile, list[torch.Tensor]]:
    """Return the int8 file of ``program`` and the batch that it was calibrated with."""
    inputs = batch(program)
    return to_tflite(program, calibrate(program, [inputs], method)), inputs


def run_litert(data: bytes, inputs: list[torch.Tensor]) -> tuple[np.ndarray, float]:
    """Run batch-1 inputs one by one; return the outputs as floats and the output step."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    results = []
    out = interpreter.get_output_details()[0]
    for i in range(len(inputs[0])):
        for value, details in zip(inputs, interpreter.get_input_details(), strict=True):
            codes = quantise_input(value[i : i + 1].numpy(), details)
            interpreter.set_tensor(details["index"], codes)
        interpreter.invoke()
        results.append(dequantise_output(interpreter.get_tensor(out["index"]), out))
    return np.concatenate(results), float(out["quantization"][0])


def run_micro(data: bytes, inputs: list[torch.Tensor]) -> np.ndarray:
    """Run batch-1 inputs one by one in tflite-micro; return the outputs as floats."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(data, arena_size=4 << 20)
    results = []
    out = interpreter.get_output_details(0)
    quantisation = out["quantization_parameters"]
    details = {"dtype": out["dtype"], "quantization": (
        quantisation["scales"][0], quantisation["zero_points"][0]
    )}  # fmt: skip
    for i in range(len(inputs[0])):
        for position, value in enumerate(inputs):
            entry = interpreter.get_input_details(position)
            entry_quantisation = entry["quantization_parameters"]
            pair = (entry_quantisation["scales"][0], entry_quantisation["zero_points"][0])
            codes = quantise_input(
                value[i : i + 1].numpy(), {"dtype": entry["dtype"], "quantization": pair}
            )
            interpreter.set_input(codes, position)
        interpreter.invoke()
        results.append(dequantise_output(interpreter.get_output(0), details))
    return np.concatenate(results)


def float_outputs(program: Program, inputs: list[torch.Tensor]) -> np.ndarray:
    """Return what PyTorch computes."""
    result: np.ndarray = WorkloadModule(program)(*inputs).numpy()
    return result
