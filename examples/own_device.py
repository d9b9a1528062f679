# SPDX-License-Identifier: Apache-2.0
"""A device of one's own in Python: say what one operator takes, and chipfit does the rest.

Try ``chipfit profile tiny_mobilenet_v2 --input 1,3,32,32 --target TARGET`` with a TARGET of
``examples/own_device.py:my_board`` or ``examples/own_device.py:my_board:clock_mhz=300``.
"""

from chipfit.graph import Op
from chipfit.targets.own import OperatorTarget


class MyBoard(OperatorTarget):
    """A made-up DSP with 16 multipliers and 4 bytes of memory traffic per cycle."""

    name = "my-board"
    precision = "int8"
    alignment = 16
    provenance = "modelled"

    def __init__(self, clock_mhz: float = 200.0) -> None:
        self.cycles_per_ms = clock_mhz * 1e3
        self.version = f"clock_mhz={clock_mhz:g}"

    def latency_ms(self, op: Op) -> float | None:
        """Take the longer of arithmetic and memory, and 500 cycles to start the operator."""
        if op.activation in ("gelu", "softplus", "mish"):
            return None
        moved_bytes = sum(_size(shape) for shape in (*op.inputs, op.output)) + op.parameter_count
        multipliers = 4 if op.kind == "conv2d" and op.depthwise else 16
        return (500 + max(op.macs / multipliers, moved_bytes / 4)) / self.cycles_per_ms


def _size(shape: tuple[int, ...]) -> int:
    return shape[0] * _size(shape[1:]) if shape else 1


def my_board(clock_mhz: str = "200") -> MyBoard:
    """Return the device; options of a target's name arrive as text."""
    return MyBoard(float(clock_mhz))
