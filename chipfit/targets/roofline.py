# SPDX-License-Identifier: Apache-2.0
"""``Roofline``: the two speeds that bound every operator (Williams et al., CACM 52(4), 2009)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Roofline:
    """Peak arithmetic and peak memory traffic of a device.

    An operator with ``macs`` and ``bytes`` to move takes at least
    ``max(macs / macs_per_s, bytes / bytes_per_s)`` seconds.

    Args:
        macs_per_s: Multiply-accumulates per second, all units busy.
        bytes_per_s: Of the memory that weights and spilled activations come from.
        memory: What that memory is, for instance ``"off-chip flash"``.
        provenance: ``"specified"`` by the maker, ``"measured"`` here or ``"modelled"``.
    """

    macs_per_s: float
    bytes_per_s: float
    memory: str
    provenance: str

    @property
    def ridge_macs_per_byte(self) -> float:
        """Arithmetic intensity below which memory, not arithmetic, is the limit."""
        return self.macs_per_s / self.bytes_per_s

    def least_ms(self, macs: float, bytes_moved: float) -> float:
        """Return the least time for ``macs`` and ``bytes_moved`` in milliseconds."""
        return max(macs / self.macs_per_s, bytes_moved / self.bytes_per_s) * 1e3
