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
        activation_bytes_per_s: Of the memory that activations live in, where it is another one.
        activation_memory: What that memory is; ``""`` where it is the same.
    """

    macs_per_s: float
    bytes_per_s: float
    memory: str
    provenance: str
    activation_bytes_per_s: float | None = None
    activation_memory: str = ""

    @property
    def ridge_macs_per_byte(self) -> float:
        """Arithmetic intensity below which memory, not arithmetic, is the limit."""
        return self.macs_per_s / self.bytes_per_s

    def least_ms(self, macs: float, bytes_moved: float) -> float:
        """Return the least time for ``macs`` and ``bytes_moved`` in milliseconds."""
        return max(macs / self.macs_per_s, bytes_moved / self.bytes_per_s) * 1e3

    def least_layer_ms(self, macs: float, weight_bytes: float, activation_bytes: float) -> float:
        """Return the least time in milliseconds of a layer whose bytes all move once.

        Weights and activations move at the same time where they lie in different memories, and
        one after the other where they share one.
        """
        return max(macs / self.macs_per_s, self._memory_s(weight_bytes, activation_bytes)) * 1e3

    def bound(self, macs: float, weight_bytes: float, activation_bytes: float) -> str:
        """Return what limits such a layer: ``"arithmetic"`` or ``"memory"``."""
        arithmetic_s = macs / self.macs_per_s
        memory_s = self._memory_s(weight_bytes, activation_bytes)
        return "memory" if memory_s > arithmetic_s else "arithmetic"

    def _memory_s(self, weight_bytes: float, activation_bytes: float) -> float:
        if self.activation_bytes_per_s is None:
            return (weight_bytes + activation_bytes) / self.bytes_per_s
        return max(weight_bytes / self.bytes_per_s, activation_bytes / self.activation_bytes_per_s)
