# SPDX-License-Identifier: Apache-2.0
"""Counts of a network as differentiable functions of the widths of its channel groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chipfit.graph.op import Op
from chipfit.graph.workload import Workload
from chipfit.targets.footprint import ELEMENT_BYTES, INT8_BIAS_BYTES

Values = NDArray[np.float64]
#: A product of lengths, each of an axis of some tensor.
Lengths = tuple[int, ...]


def mac_lengths(op: Op) -> Lengths:
    """Return lengths whose product is the operator's multiply-accumulates."""
    if op.kind == "conv2d":
        return (*op.output, op.inputs[0][1] // op["groups"], *op["kernel"])
    if op.kind == "conv_transpose2d":
        return (*op.inputs[0], op.output[1] // op["groups"], *op["kernel"])
    if op.kind in ("linear", "matmul"):
        return (*op.output, op.inputs[0][-1])
    return (0,)


class Affine:
    """Numbers that are a constant plus a multiple of every width.

    Args:
        widths: ``(networks, groups)``.
        numbers: Of the same networks, ``(networks, numbers)``.
    """

    def __init__(self, widths: Values, numbers: Values) -> None:
        design = np.column_stack([np.ones(len(widths)), widths])
        found = np.linalg.lstsq(design, numbers, rcond=None)[0]
        whole = np.round(found)
        meets = (design @ whole == numbers).all(0)
        found[:, meets] = whole[:, meets]
        self._constant = torch.as_tensor(found[0].copy())
        self._slopes = torch.as_tensor(found[1:].T.copy())
        #: Whether the numbers of all these networks are met.
        self.exact = bool(np.allclose(design @ found, numbers, rtol=1e-9, atol=1e-6))

    def __call__(self, widths: Tensor) -> Tensor:
        """Return the numbers, ``(numbers,)``, for widths ``(groups,)`` in double precision."""
        return self._constant + self._slopes @ widths


class WidthCounts:
    """Multiply-accumulates, parameters and bytes of weights as functions of widths.

    The length of every axis is a constant plus multiples of widths, and counts are products of
    lengths; for whole widths they are those of the sliced network. Where a length is no such sum
    (heads of an attention times channels of each, both free) it is the nearest one
    (:attr:`exact` is ``False``).

    Args:
        widths: Of example networks, ``(networks, groups)``.
        workloads: The same networks.
        precision: Of weights.
    """

    def __init__(self, widths: Values, workloads: Sequence[Workload], precision: str) -> None:
        #: By count, of each of its terms the factor; by node of the first workload in its order.
        terms: dict[str, list[float]] = {}
        lengths: list[list[Lengths]] = []
        for workload in workloads:
            found = _terms(workload, precision)
            lengths.append([own for parts in found.values() for _, own in parts])
            terms = {key: [factor for factor, _ in parts] for key, parts in found.items()}
        ranks = [max(len(own) for own in column) for column in zip(*lengths, strict=True)]
        padded = [
            [n for own, rank in zip(row, ranks, strict=True) for n in _pad(own, rank)]
            for row in lengths
        ]
        self._affine = Affine(widths, np.array(padded, np.float64))
        self.exact = self._affine.exact
        self._index = torch.full((len(ranks), max(ranks, default=1)), sum(ranks))
        at = 0
        for i, rank in enumerate(ranks):
            self._index[i, :rank] = torch.arange(at, at + rank)
            at += rank
        self._places: dict[str, tuple[int, int]] = {}
        at = 0
        for key, factors in terms.items():
            self._places[key] = (at, at + len(factors))
            at += len(factors)
        self._factors = torch.tensor(
            [f for factors in terms.values() for f in factors], dtype=torch.float64
        )

    def __call__(self, widths: Tensor) -> dict[str, Tensor]:
        """Return the terms of every count, a vector each, for widths ``(groups,)``.

        ``macs`` and ``outputs`` (elements written) have a term per operator, in order.
        """
        lengths = torch.cat([self._affine(widths), torch.ones(1, dtype=torch.float64)])
        products = lengths[self._index].prod(1) * self._factors
        return {key: products[start:stop] for key, (start, stop) in self._places.items()}


def _terms(workload: Workload, precision: str) -> Mapping[str, list[tuple[float, Lengths]]]:
    size = ELEMENT_BYTES[precision]
    found: dict[str, list[tuple[float, Lengths]]] = {
        "macs": [], "outputs": [], "params": [], "weight_bytes": [],
    }  # fmt: skip
    for node in workload.nodes:
        op = node.op
        found["macs"].append((1.0, mac_lengths(op)))
        found["outputs"].append((1.0, tuple(op.output)))
        for role, shape in op.parameter_shapes.items():
            wide = precision == "int8" and role == "bias" and op.kind in ("conv2d", "linear")
            found["params"].append((1.0, tuple(shape)))
            found["weight_bytes"].append((INT8_BIAS_BYTES if wide else size, tuple(shape)))
    for name in sorted(workload.constants):
        found["params"].append((1.0, tuple(workload.shapes[name])))
        found["weight_bytes"].append((size, tuple(workload.shapes[name])))
    return found


def _pad(lengths: Lengths, rank: int) -> Lengths:
    return lengths if len(lengths) == rank else (math.prod(lengths), *[1] * (rank - 1))
