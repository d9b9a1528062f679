# SPDX-License-Identifier: Apache-2.0
"""What the generations of Ethos-U differ in, and how far around an operator its cost reaches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Defaults of one generation.

    Args:
        macs: MAC units per cycle, one target each.
        system_config: Vela's own default.
        memory_mode: Vela's own default.
        alignment: Channel multiple (see :data:`FAMILIES`).
        chained: Whether elementwise operators run together with what makes their input; without
            this, bottleneck residual blocks on U85 miss by 6 %.
    """

    macs: tuple[int, ...]
    system_config: str
    memory_mode: str
    alignment: int
    chained: bool = False


#: System configuration and memory mode are what Vela takes where none is given.
#:
#: Alignment: cycles of an expand, depthwise, project chain (28 x 28, 48 to 112 hidden channels)
#: rise in steps of 8 channels on U55 and U65, and of 16 on U85; input channels of a dense
#: convolution, in steps of 32. Widths between steps cost as much as the next step, or more.
FAMILIES = {
    "u55": Family((32, 64, 128, 256), "Ethos_U55_High_End_Embedded", "Shared_Sram", 8),
    "u65": Family((256, 512), "Ethos_U65_Client_Server", "Dedicated_Sram_384KB", 8),
    "u85": Family(
        (128, 256, 512, 1024, 2048),
        "Ethos_U85_SYS_DRAM_Mid",
        "Dedicated_Sram_384KB",
        16,
        chained=True,
    ),
}

#: Producers and consumers, in steps, that an operator is compiled with (see
#: :func:`~chipfit.targets.windows.neighbour_units` for what else). Random networks come within
#: 0.1 % of the whole on U55, 0.2 % on U65 and 0.4 % on U85, on average
#: (``benchmarks/prediction_error.py``); more producers change nothing that matters.
REACH = (2, 1)
#: On U85 what a consumer does with its own result costs its producer some 700 cycles. That shows
#: where a whole network has tens of thousands: where live tensors never take more than this.
SMALL_BYTES = 64 * 1024
SMALL_REACH = (2, 2)
#: Where live tensors (int8: a byte each) take more than this share of the SRAM that is set aside
#: for activations, the compiler moves some to DRAM; the rest is left to the weights it stages.
CROWDED = 0.75
