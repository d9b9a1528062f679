# SPDX-License-Identifier: Apache-2.0
"""Index tensors of channels, kept axis by axis, and what a reshape makes of them.

Every axis of a tensor has layers: vectors with a label per position. An entry of the tensor
exists where the labels of its position on every axis exist. No index tensor is ever held at the
size of the activation, and each layer varies along exactly one axis.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from chipfit.graph.coupling_labels import NONE, Labels, Vector

Layers = list[Vector]
Shape = tuple[int, ...]
#: A merged axis longer than this is not followed.
LONGEST = 4_000_000


@dataclass
class Axes:
    """Shape of a tensor and the layers of each of its axes.

    Args:
        shape: Its sizes.
        layers: By axis; none where the axis cannot be narrowed.
    """

    shape: Shape
    layers: list[Layers] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.layers:
            self.layers = [[] for _ in self.shape]

    def labelled(self) -> list[int]:
        """Return the axes that have layers."""
        return [i for i, own in enumerate(self.layers) if own]


def joined(parts: Sequence[Layers], sizes: Sequence[int]) -> Layers:
    """Return the layers of axes put one behind the other (concatenation)."""
    count = max((len(part) for part in parts), default=0)
    return [
        np.concatenate([
            part[i] if i < len(part) else np.full(size, NONE, dtype=np.int64)
            for part, size in zip(parts, sizes, strict=True)
        ])
        for i in range(count)
    ]  # fmt: skip


def merged(parts: Sequence[Layers], sizes: Sequence[int]) -> Layers:
    """Return the layers of one axis made of several, the outermost first."""
    result: Layers = []
    for i, part in enumerate(parts):
        outer, inner = prod(sizes[:i]), prod(sizes[i + 1 :])
        result += [np.tile(np.repeat(vector, inner), outer) for vector in part]
    return result


def split(
    labels: Labels, key: Hashable, layers: Layers, sizes: Sequence[int], reason: str
) -> list[Layers]:
    """Return the layers of several axes made of one.

    A layer that varies along one of the new axes moves there; one that varies along more becomes
    a conjunction of fresh layers, so that what is left is always rectangular.
    """
    if len(sizes) == 1:
        return [layers]
    outer, inner = sizes[0], prod(sizes[1:])
    if outer == 1 or inner == 1:
        rest = split(labels, key, layers if outer == 1 else [], sizes[1:], reason)
        return [[] if outer == 1 else layers, *rest]
    first: Layers = []
    second: Layers = []
    mixed: Layers = []
    for layer in layers:
        for column in labels.columns(labels.roots(layer)):
            grid = labels.roots(column).reshape(outer, inner)
            if (grid == grid[:1]).all():
                second.append(grid[0])
            elif (grid == grid[:, :1]).all():
                first.append(grid[:, 0])
            else:
                mixed.append(column)
    if mixed:
        high = labels.fresh((key, len(sizes), "outer"), outer)
        low = labels.fresh((key, len(sizes), "inner"), inner)
        for vector, axis in ((high, 1), (low, 0)):
            if not _one_family(labels, mixed, (outer, inner), axis):
                labels.freeze(vector, "channels of different layers lie side by side")
        labels.same(mixed, merged([[high], [low]], (outer, inner)), reason)
        first, second = [*first, high], [*second, low]
    return [_useful(labels, first), *split(labels, key, _useful(labels, second), sizes[1:], reason)]


def _one_family(labels: Labels, mixed: Layers, shape: tuple[int, int], axis: int) -> bool:
    """Return whether what one new axis tells apart was made together, so that it may go."""
    for layer in mixed:
        grid = np.array([labels.family(root) for root in labels.roots(layer)]).reshape(shape)
        if (grid != grid.take([0], 1 - axis)).any():
            return False
    return True


def _useful(labels: Labels, layers: Layers) -> Layers:
    """Return the layers of which something can be removed, each once."""
    found: dict[bytes, Vector] = {}
    for layer in layers:
        roots = labels.roots(layer)
        if not all(int(root) in labels.frozen for root in np.unique(roots)):
            found.setdefault(roots.tobytes(), layer)
    return list(found.values())


def reshaped(labels: Labels, key: Hashable, axes: Axes, shape: Shape, reason: str) -> Axes:
    """Return the layers after a reshape, by the smallest blocks of axes that it maps to others."""
    result = Axes(shape)
    if prod(axes.shape) != prod(shape) or 0 in shape:
        freeze_all(labels, axes, reason)
        return result
    i = j = 0
    while i < len(axes.shape) or j < len(shape):
        starts = i, j
        old = new = 1
        while True:
            if old == new and (i, j) != starts:
                break
            if (old <= new and i < len(axes.shape)) or j >= len(shape):
                old, i = old * axes.shape[i], i + 1
            else:
                new, j = new * shape[j], j + 1
        block, target = slice(starts[0], i), slice(starts[1], j)
        _block(labels, (key, starts), axes, block, result, target, reason)
    return result


def _block(
    labels: Labels, key: Hashable, axes: Axes, block: slice, result: Axes, target: slice,
    reason: str,
) -> None:  # fmt: skip
    layers, sizes, new = axes.layers[block], axes.shape[block], result.shape[target]
    wide = [(own, size) for own, size in zip(layers, sizes, strict=True) if size > 1]
    places = [n for n, size in enumerate(new) if size > 1]
    if not any(own for own, _ in wide) or not places:
        return
    if [size for _, size in wide] == [new[n] for n in places]:
        found = [own for own, _ in wide]
    elif prod(sizes) > LONGEST:
        for own, _ in wide:
            for layer in own:
                labels.freeze(np.unique(layer), reason)
        return
    else:
        one = merged([own for own, _ in wide], [size for _, size in wide])
        found = split(labels, key, one, [new[n] for n in places], reason)
    for n, own in zip(places, found, strict=True):
        result.layers[target.start + n] = own


def freeze_all(labels: Labels, axes: Axes, reason: str) -> None:
    """Freeze everything on every axis."""
    for own in axes.layers:
        freeze_axis(labels, own, reason)


def freeze_axis(labels: Labels, layers: Layers, reason: str) -> None:
    """Freeze everything on one axis."""
    for layer in layers:
        labels.freeze(np.unique(layer), reason)
