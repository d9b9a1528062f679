# SPDX-License-Identifier: Apache-2.0
"""``torch-cpu``, and what it shares with ``cuda``: networks timed as PyTorch runs them.

What runs is the network's operators one by one (:mod:`chipfit.targets.torch_module`), with the
user's weights where there are any. This is not the user's own module: batch norm is folded into
convolutions, which PyTorch in eager mode would run as operators of their own, dropout and other
no-ops are gone, and Python code between the operators does not run. A network whose time goes to
those is slower in the user's hands; what is left is what any deployment of it would keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from chipfit.errors import BadInput, UnknownName
from chipfit.graph.execute import synthetic_parameters
from chipfit.graph.op import make_op
from chipfit.graph.workload import Node, Program, Workload
from chipfit.machine import cpu_name
from chipfit.targets.base import TARGETS, Refusal, RuntimeNode
from chipfit.targets.footprint import footprint
from chipfit.targets.measured import MeasuredTarget, Subject
from chipfit.targets.onnx_target import read_threads
from chipfit.targets.timing import Protocol, Run
from chipfit.targets.torch_module import NetworkModule
from chipfit.targets.torch_profile import executed

#: Raised whenever the reference changes, or what is measured with it; part of the fingerprint.
REFERENCE_VERSION = 1
_DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass
class Compiled:
    """A module with its inputs on the device; compiled at most once, as that takes a while.

    Args:
        module: On the device, in the target's precision.
        inputs: Likewise.
        code: What the compiler made of it; ``None`` until it was asked.
    """

    module: NetworkModule
    inputs: tuple[torch.Tensor, ...]
    code: Callable[..., Any] | None = field(default=None, repr=False)

    def compiled(self) -> Callable[..., Any]:
        """Return the code of PyTorch's default compiler for fixed shapes."""
        if self.code is None:
            from torch.fx.experimental.proxy_tensor import make_fx

            with torch.no_grad():
                graph = make_fx(self.module)(*self.inputs)
            self.code = torch.compile(graph, fullgraph=True, dynamic=False)
        return self.code


class TorchTarget(MeasuredTarget):
    """A device that PyTorch drives.

    Args:
        mode: One of :attr:`modes`.
        precision: One of :attr:`precisions`.
        threads: Of PyTorch within an operator.
        protocol: Effort of a measurement.

    Raises:
        UnknownName: There is no such mode.
        BadInput: There is no such precision, or ``threads`` is not a positive number.
    """

    file_format = ""
    modes: tuple[str, ...] = ("eager", "channels_last", "compiled")
    device = "cpu"

    def __init__(
        self, mode: str = "eager", precision: str = "float32", threads: int | str = 1,
        protocol: Protocol | None = None,
    ) -> None:  # fmt: skip
        if mode not in self.modes:
            raise UnknownName(f"mode of {self.name}", mode, self.modes)
        if precision not in self.precisions:
            known = ", ".join(self.precisions)
            raise BadInput(f"unknown precision {precision!r}", f"{self.name} runs {known}")
        super().__init__(precision, read_threads(threads), protocol)
        self.mode = mode
        given = (("mode", mode, "eager"), ("precision", precision, "float32"),
                 ("threads", self.threads, 1))  # fmt: skip
        self.options = {name: str(value) for name, value, default in given if value != default}

    @property
    def fingerprint(self) -> str:
        """PyTorch's version, the device, mode, precision, threads and reference network."""
        return (
            f"{self.name} torch={torch.__version__} {self._device_facts()} mode={self.mode}"
            f" precision={self.precision} reference={REFERENCE_VERSION}"
        )

    def in_precision(self, precision: str) -> TorchTarget:
        """Return the same in another precision."""
        if precision == self.precision:
            return self
        return type(self)(self.mode, precision, self.threads, self.protocol)

    def refusals(self, workload: Workload) -> list[Refusal]:
        """Return the operators whose meaning the tracer did not understand."""
        return [
            Refusal(n.name, str(n.op.get("aten", n.op.kind)), "its meaning is unknown")
            for n in workload.nodes
            if n.op.kind == "unsupported"
        ]

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Hold PyTorch's number of threads, which is the whole process's."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _device_facts(self) -> str:
        return f"cpu={cpu_name()} threads={self.threads}"

    def _prepare(self, network: Workload | Program | Path) -> Subject:
        if isinstance(network, Path):
            raise BadInput(f"the target {self.name} reads no files, not even {network}",
                           "cost the network itself")  # fmt: skip
        workload = network.workload if isinstance(network, Program) else network
        program = network if isinstance(network, Program) else synthetic_parameters(network)
        statics = footprint(workload, self.precision)
        return Subject(self._content(program), statics, workload, "the network")

    def _content(self, program: Program) -> Compiled:
        generator = torch.Generator().manual_seed(0)
        load, dtype = program.workload, _DTYPES[self.precision]
        inputs = [torch.randn(load.shapes[name], generator=generator) for name in load.inputs]
        module = NetworkModule(program).eval().to(self.device, dtype)
        inputs = [x.to(self.device, dtype) for x in inputs]
        if self.mode == "channels_last":
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            inputs = [
                x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
                for x in inputs
            ]
        return Compiled(module, tuple(inputs))

    def _open(self, subject: Subject) -> Run:
        return self._runner(self._function(subject), subject.content.inputs)

    def _function(self, subject: Subject) -> Callable[..., Any]:
        """Return what computes the network: fresh memory, or the code that was compiled once."""
        content: Compiled = subject.content
        if self.mode == "compiled" and subject.workload is not _REFERENCE:
            return content.compiled()
        return content.module.fresh()

    def _runner(self, function: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> Run:
        def run() -> None:
            with torch.inference_mode():
                function(*inputs)

        return run

    def _reference(self) -> Subject:
        program = synthetic_parameters(_REFERENCE, seed=0)
        return Subject(self._content(program), {}, _REFERENCE, "the reference network")

    def _empty(self) -> Subject:
        return self._prepare(_EMPTY)

    def _nodes(self, subject: Subject) -> list[RuntimeNode]:
        content: Compiled = subject.content
        compiled = self.mode == "compiled"
        function = content.compiled() if compiled else content.module
        run = self._runner(function, content.inputs)
        # Code that was compiled has no operators any more that could tell their names.
        scopes = None if compiled else content.module
        assert subject.workload is not None
        return executed(run, scopes, subject.workload, self.device, self.precision)


class TorchCpu(TorchTarget):
    """PyTorch on this machine's processor, float32; see :class:`TorchTarget`."""

    name = "torch-cpu"
    #: oneDNN's kernels work on vectors of 8 channels.
    alignment = 8


def _inverted_bottlenecks() -> Workload:
    """Return the reference: pointwise and depthwise convolutions in turns, some milliseconds."""
    nodes, tensor, shapes = [], "x", {"x": (1, 32, 56, 56)}
    for i, (kernel, groups) in enumerate([(1, 1), (3, 96)] * 3):
        before, after = shapes[tensor], (1, 96, 56, 56)
        op = make_op(
            "conv2d", [before], after, activation="relu", kernel=(kernel, kernel), stride=(1, 1),
            dilation=(1, 1), groups=groups, bias=True, padding=(kernel // 2,) * 4,
        )  # fmt: skip
        nodes.append(Node(f"conv{i}", op, (tensor,), f"t{i}"))
        tensor = f"t{i}"
        shapes[tensor] = after
    return Workload(tuple(nodes), ("x",), (tensor,), shapes)


def _activation_alone() -> Workload:
    shape = (1, 8)
    op = make_op("activation", [shape], shape, activation="relu")
    return Workload((Node("relu", op, ("x",), "y"),), ("x",), ("y",), {"x": shape, "y": shape})


_REFERENCE = _inverted_bottlenecks()
_EMPTY = _activation_alone()


@TARGETS.register(
    "torch-cpu",
    summary="this machine's CPU through PyTorch (eager, channels_last, compiled), measured",
)
def torch_cpu(mode: str = "eager", precision: str = "float32", threads: int | str = 1) -> TorchCpu:
    """Return the target; options are text where they stand in a name."""
    return TorchCpu(mode, precision, threads)
