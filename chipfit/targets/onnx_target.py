# SPDX-License-Identifier: Apache-2.0
"""``OnnxTarget``: what runtimes share that run ONNX files on this machine's processor."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from chipfit.errors import BadInput
from chipfit.export.onnx_int8 import Int8Scheme, scheme_for_this_cpu
from chipfit.graph.workload import Program, Workload
from chipfit.machine import cpu_name
from chipfit.targets.base import Refusal
from chipfit.targets.measured import MeasuredTarget, Subject
from chipfit.targets.ort_network import network_of
from chipfit.targets.ort_session import REFERENCE_VERSION, empty_bytes, reference_bytes
from chipfit.targets.timing import Protocol

_SWITCH = {"yes": True, "no": False, "true": True, "false": False, "auto": None, "": None}


class OnnxTarget(MeasuredTarget):
    """A runtime for ONNX files, float32 or int8, batch 1.

    In int8, networks are quantised with :mod:`chipfit.export.onnx_int8`; the reference that they
    are timed against is the float one in either precision.

    Args:
        threads: Threads within an operator. With one, times are CPU times; with more they are
            wall-clock times, which other processes disturb.
        protocol: Effort of a measurement.
        precision: ``"float32"`` or ``"int8"``.
        variant: Of int8: ``"u8s8"``, ``"s8s8"`` or ``"u8u8"`` (activations, then weights).
        reduce_range: Of int8: weights of 7 bits, ``"yes"`` or ``"no"``; by default where the
            processor has no VNNI and the variant is ``u8s8``.

    Raises:
        MissingBackend: The runtime is not installed.
        BadInput: ``threads`` is not a positive number, or the precision is unknown.
        UnknownName: There is no such variant.
    """

    file_format = "onnx"
    precisions = ("float32", "int8")

    def __init__(
        self, threads: int | str = 1, protocol: Protocol | None = None, precision: str = "float32",
        variant: str = "", reduce_range: str = "",
    ) -> None:  # fmt: skip
        super().__init__(precision, read_threads(threads), protocol)
        self.scheme = read_scheme(precision, variant, reduce_range)
        self.options = {
            name: str(value)
            for name, value, default in (
                ("precision", precision, "float32"), ("threads", self.threads, 1),
                ("variant", variant, ""), ("reduce_range", reduce_range, ""),
            )
            if value != default
        }  # fmt: skip
        int8 = f" scheme={self.scheme.label}" if self.scheme else ""
        self._fingerprint = (
            f"{self.name} {self.runtime()} cpu={cpu_name()} threads={self.threads}"
            f" precision={precision}{int8} reference={REFERENCE_VERSION}"
        )

    @staticmethod
    @abstractmethod
    def runtime() -> str:
        """Return the runtime with its version, as it stands in the fingerprint.

        Raises:
            MissingBackend: It is not installed.
        """

    @property
    def fingerprint(self) -> str:
        """Runtime version, CPU model, threads, precision, int8 scheme and reference network."""
        return self._fingerprint

    def in_precision(self, precision: str) -> OnnxTarget:
        """Return the same in another precision; int8 by the scheme that suits this processor."""
        if precision == self.precision:
            return self
        return type(self)(self.threads, self.protocol, precision)

    def refusals(self, workload: Workload) -> list[Refusal]:
        """Return the operators that have no export to ONNX."""
        return [
            Refusal(n.name, str(n.op.get("aten", n.op.kind)), "it has no export to ONNX")
            for n in workload.nodes
            if n.op.kind == "unsupported"
        ]

    def _prepare(self, network: Workload | Program | Path) -> Subject:
        return network_of(network, self.precision, self.scheme)

    def _reference(self) -> Subject:
        return Subject(reference_bytes(), {}, None, "the reference network")

    def _empty(self) -> Subject:
        return Subject(empty_bytes(), {}, None, "the empty network")


def read_threads(threads: int | str) -> int:
    """Return a positive number of threads; it may be text, as when it stands in a name.

    Raises:
        BadInput: It is none.
    """
    try:
        number = int(threads)
    except ValueError as error:
        raise BadInput(f"threads={threads} is not a positive number") from error
    if number < 1:
        raise BadInput(f"threads={threads} is not a positive number")
    return number


def read_scheme(precision: str, variant: str, reduce_range: str) -> Int8Scheme | None:
    """Return the int8 scheme of the options; ``None`` in float32.

    Raises:
        BadInput: Another precision, or int8 options in float32.
        UnknownName: There is no such variant.
    """
    known = OnnxTarget.precisions
    if precision not in known:
        raise BadInput(f"unknown precision {precision!r}", f"known: {', '.join(known)}")
    if reduce_range.lower() not in _SWITCH:
        raise BadInput(f"reduce_range={reduce_range} is neither yes nor no nor auto")
    if precision == "int8":
        return scheme_for_this_cpu(variant, _SWITCH[reduce_range.lower()])
    if variant or reduce_range:
        raise BadInput("variant and reduce_range belong to int8", "add precision=int8")
    return None
