# SPDX-License-Identifier: Apache-2.0
"""How PyTorch's axes lie in a TFLite tensor, so that most permutations cost nothing.

A tensor is stored with its axes in some *order*: ``order[k]`` is the PyTorch axis stored at place
``k``. Images ``(N, C, H, W)`` are stored as NHWC, order ``(0, 2, 3, 1)``. A permutation only
changes the order; data moves when an operator needs another one.
"""

from __future__ import annotations

from dataclasses import dataclass

from chipfit.export.tflite.ir import TFTensor
from chipfit.graph.op import Shape

Order = tuple[int, ...]
NHWC: Order = (0, 2, 3, 1)


@dataclass(frozen=True)
class Value:
    """A tensor of the workload as it is stored.

    Args:
        tensor: Its TFLite tensor.
        order: The PyTorch axis at every stored place.
        owner: The node to charge for moving the data (a permutation); empty for none.
        columns: For a flattened image that only linear layers read, the PyTorch column at every
            stored column; empty for the natural order.
    """

    tensor: TFTensor
    order: Order
    owner: str = ""
    columns: tuple[int, ...] = ()

    @property
    def shape(self) -> Shape:
        """The shape in PyTorch's order of axes."""
        sizes = dict(zip(self.order, self.tensor.shape, strict=True))
        return tuple(sizes[axis] for axis in range(len(sizes)))


def identity(rank: int) -> Order:
    """Return the order in which a tensor is stored as in PyTorch."""
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """Return the order that stores axis 1 last: NHWC for images."""
    return identity(rank) if rank < 3 else (0, *range(2, rank), 1)


def stored(shape: Shape, order: Order) -> Shape:
    """Return the stored shape of a tensor with PyTorch shape ``shape``."""
    return tuple(shape[axis] for axis in order)


def same_memory(shape: Shape, order: Order, other: Order) -> bool:
    """Whether two orders lay the data out alike, axes of size one aside."""
    return [a for a in order if shape[a] != 1] == [a for a in other if shape[a] != 1]


def permutation(order: Order, target: Order) -> Order:
    """Return ``TRANSPOSE``'s permutation from one stored order to another."""
    return tuple(order.index(axis) for axis in target)


def groups(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """Split a reshape into the smallest runs of axes that hold the same elements.

    >>> groups((1, 6, 4, 4), (1, 2, 3, 16))
    [([0], [0]), ([1], [1, 2]), ([2, 3], [3])]
    """
    result: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [i] if i < len(before) else [], [j] if j < len(after) else []
        a = before[i] if left else 1
        b = after[j] if right else 1
        i, j = i + len(left), j + len(right)
        while a != b:
            if a < b:
                left.append(i)
                a *= before[i]
                i += 1
            else:
                right.append(j)
                b *= after[j]
                j += 1
        result.append((left, right))
    return result


def reshaped_orders(before: Shape, after: Shape, order: Order) -> tuple[Order, Order]:
    """Plan a reshape of a stored tensor.

    Returns:
        The order that the input must have, the given one (axes of size one aside) where no data
        needs to move, and the order of the output.
    """
    runs = groups(before, after)
    place = {axis: k for k, axis in enumerate(order)}

    def first(run: tuple[list[int], list[int]]) -> int:
        real = [place[axis] for axis in run[0] if before[axis] != 1]
        return min(real) if real else min((place[a] for a in run[0]), default=len(order))

    ranked = sorted(range(len(runs)), key=lambda k: (runs[k][0][:1] != [0], first(runs[k]), k))
    source = tuple(axis for k in ranked for axis in runs[k][0])
    target = tuple(axis for k in ranked for axis in runs[k][1])
    return source, target
