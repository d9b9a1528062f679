# SPDX-License-Identifier: Apache-2.0
"""What CMSIS-NN's int8 kernels cost on Cortex-M cores: every constant with its source.

A network's cycles are the sum, over its operators, of these constants times the work of each kind
(:class:`chipfit.targets.cortex_m_model.Work`). The constants of convolution, depthwise convolution
and dense layers were fitted (non-negative least squares of relative errors) to whole-network
latencies of the four MLPerf Tiny networks, with the other constants held at the estimates below.
``benchmarks/microcontrollers.py`` holds the published latencies and prints the model's error on
those that were fitted and on those that were not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Kinds of work, in the order in which they are explained.
WORK = (
    "conv_macs", "depthwise_macs", "dense_macs", "outputs", "elementwise", "transcendental",
    "pooled", "moved", "operators",
)  # fmt: skip


@dataclass(frozen=True)
class Constant:
    """Cycles of one unit of work.

    Args:
        cycles: Per multiply-accumulate, element or operator.
        source: Where it comes from.
        estimated: Whether it was reasoned, not measured by anybody.
    """

    cycles: float
    source: str
    estimated: bool = False


@dataclass(frozen=True)
class Core:
    """One processor core.

    Args:
        name: Of the target, for instance ``"cortex-m4"``.
        summary: What it is, in words.
        clock_mhz: Of the board that the figures were taken on.
        board: That board.
        constants: By kind of work, all of :data:`WORK`.
        load_bytes_per_cycle: Widest load that the core can start every cycle.
    """

    name: str
    summary: str
    clock_mhz: float
    board: str
    constants: Mapping[str, Constant]
    load_bytes_per_cycle: int


_OCTO_M4 = "MLPerf Tiny v1.0, OctoML, microTVM with CMSIS-NN, NUCLEO-L4R5ZI, fitted"
_RENESAS_M33 = "MLPerf Tiny v0.7, Renesas, TFLM with CMSIS-NN, EK-RA6M4, fitted"
_RENESAS_M85 = "MLPerf Tiny v1.2, Renesas, TFLM with CMSIS-NN, EK-RA8D1, fitted"
_ST_M7 = (
    "MLPerf Tiny v1.0: cycles of the Cortex-M4 source, times STMicroelectronics' Cortex-M7 to"
    " Cortex-M4 ratio of the same network (NUCLEO-H7A3ZI-Q, NUCLEO-L4R5ZI, X-CUBE-AI), fitted"
)
_ALIF_M55 = (
    "cycles of single layers of MobileNetV2 on an Alif E8, CMSIS-NN:"
    " github.com/pytorch/executorch/issues/17651, fitted"
)

#: What no published figure tells, with the reasoning. DSP cores handle one or two elements an
#: instruction, Helium cores eight or sixteen, but both call scalar code for exp and tables.
_SCALAR = {
    "outputs": Constant(10, "requantisation: high multiply, shift, clamp, store", True),
    "elementwise": Constant(20, "two rescalings, one sum, one rescaling back", True),
    "transcendental": Constant(100, "fixed-point exp or reciprocal of each element", True),
    "pooled": Constant(4, "load, extend, accumulate or compare, loop", True),
    "moved": Constant(2, "byte copies with index arithmetic", True),
    "operators": Constant(1000, "dispatch, unpacking of parameters, buffers", True),
}
_HELIUM = _SCALAR | {
    "elementwise": Constant(4, "the scalar reasoning on four lanes of 32 bits", True),
    "pooled": Constant(0.5, "sixteen lanes, two cycles an instruction", True),
    "moved": Constant(0.5, "vector copies of short rows", True),
}


def _fitted(conv: float, depthwise: float, dense: float, source: str) -> dict[str, Constant]:
    return {
        "conv_macs": Constant(conv, source),
        "depthwise_macs": Constant(depthwise, source),
        "dense_macs": Constant(dense, source),
    }


CORES = {
    core.name: core
    for core in (
        Core("cortex-m4", "Arm Cortex-M4 with DSP extension", 120, "NUCLEO-L4R5ZI",
             _SCALAR | _fitted(3.62, 10.33, 3.81, _OCTO_M4), 4),
        Core("cortex-m7", "Arm Cortex-M7", 280, "NUCLEO-H7A3ZI-Q",
             _SCALAR | _fitted(1.97, 3.15, 2.10, _ST_M7), 8),
        Core("cortex-m33", "Arm Cortex-M33 with DSP extension", 200, "EK-RA6M4",
             _SCALAR | _fitted(3.82, 2.92, 3.39, _RENESAS_M33), 4),
        Core("cortex-m55", "Arm Cortex-M55 with Helium", 400, "Alif Ensemble E8",
             _HELIUM | _fitted(0.200, 1.69, 1.04, _ALIF_M55) | {
                 "outputs": Constant(18.9, _ALIF_M55),
                 "dense_macs": Constant(
                     1.04, "Cortex-M85's, times 1.2: Arm puts the Cortex-M85 20 % above the"
                     " Cortex-M55", True,
                 ),
             }, 8),
        Core("cortex-m85", "Arm Cortex-M85 with Helium", 480, "EK-RA8D1",
             _HELIUM | _fitted(0.245, 1.80, 0.863, _RENESAS_M85), 8),
    )
}  # fmt: skip
