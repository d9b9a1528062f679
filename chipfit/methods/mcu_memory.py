# SPDX-License-Identifier: Apache-2.0
"""Peak memory of activations as a differentiable function of the widths of channel groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from chipfit.errors import BadInput
from chipfit.graph.memory_graph import MemoryGraph, live_sets
from chipfit.graph.operator_order import best_order
from chipfit.methods.mcu_shapes import Affine, Values


class WidthMemory:
    """The largest sum of live bytes over the operators, in the best order for the widths asked of.

    Bytes of a tensor are a constant plus multiples of widths; for whole widths the peak is that of
    the sliced network. Its gradient is that of the operator at which memory is fullest.

    Args:
        widths: Of example networks, ``(networks, groups)``.
        graphs: The same networks as the device's memory sees them.

    Raises:
        BadInput: They do not have the same operators.
    """

    def __init__(self, widths: Values, graphs: Sequence[MemoryGraph]) -> None:
        self._graph = graphs[0]
        self._names = tuple(sorted(graphs[0].sizes))
        if any(set(graph.sizes) != set(self._names) for graph in graphs):
            raise BadInput(
                "the operators that the device runs depend on the widths of this network",
                "leave out the bound on peak_sram_bytes",
            )
        sizes = [[graph.sizes[name] for name in self._names] for graph in graphs]
        self._bytes = Affine(widths, np.array(sizes, np.float64))
        self.exact = self._bytes.exact
        self._live: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, widths: Tensor, smooth: float = 0.0) -> Tensor:
        """Return the peak in bytes, a scalar, for widths ``(groups,)`` in double precision.

        Args:
            widths: Of the groups.
            smooth: 0 for the peak itself; else ``t logsumexp(bytes / t)`` over operators with
                ``t = smooth`` times the peak, which is a little more and has a gradient in all
                operators near the peak.
        """
        sizes = self._bytes(widths)
        unit = self._graph.alignment
        # Rounding up has no gradient worth the name: that of what is rounded takes its place.
        taken = sizes + (torch.ceil(sizes / unit - 1e-9) * unit - sizes).detach()
        sums = self._matrix(sizes) @ taken
        if not smooth:
            return sums.max()
        scale = smooth * sums.detach().max().clamp_min(1.0)
        return scale * torch.logsumexp(sums / scale, 0)

    def _matrix(self, sizes: Tensor) -> Tensor:
        """Return which tensors are live at which operator, ``(operators, tensors)``."""
        rounded = dict(zip(self._names, sizes.detach().round().int().tolist(), strict=True))
        graph = replace(self._graph, sizes=rounded)
        order = best_order(graph).order
        if order not in self._live:
            place = {name: i for i, name in enumerate(self._names)}
            matrix = torch.zeros(len(order), len(place), dtype=torch.float64)
            for i, live in enumerate(live_sets(graph, order)):
                matrix[i, [place[name] for name in live]] = 1.0
            self._live[order] = matrix
        return self._live[order]
