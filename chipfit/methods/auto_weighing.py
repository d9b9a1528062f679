# SPDX-License-Identifier: Apache-2.0
"""What ``auto`` allocates by: losses of all groups, weighed against each other, and capacity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chipfit.methods.space_costs import Codes, Values
from chipfit.methods.width_table import WidthTable

#: How much a fitted weight is drawn towards that of all, beside mean squared relative errors of 1.
PULL = 0.05
#: Least fitted weight: what nothing speaks against yet is not free.
LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Weighing:
    """How much losses count, and how much capacity counts besides.

    Args:
        losses: By choice, what one unit of its loss counts.
        capacities: By choice, what one unit of ``log(width / full width)`` counts: by that alone a
            group narrows the more, the more it saves. Of a replaced block it is the logarithm of
            the share of its work.
    """

    losses: tuple[float, ...]
    capacities: tuple[float, ...]

    def values(
        self, lost: Sequence[NDArray[np.float64]], shares: Sequence[NDArray[np.float64]]
    ) -> list[NDArray[np.float64]]:
        """Return the value of every option of every choice, higher is better.

        Args:
            lost: By choice, the loss at each of its options.
            shares: By choice, what is left of the width, or of the work, at each of its options.
        """
        return [
            capacity * np.log(share) - weight * loss
            for weight, capacity, loss, share in zip(
                self.losses, self.capacities, lost, shares, strict=True
            )
        ]


def fitted(lost: Sequence[NDArray[np.float64]], rows: Codes, distances: Values) -> Weighing:
    """Return weights by which the losses of single choices add up to what whole networks lost.

    Non-negative least squares of relative errors; weights are drawn towards one that all share.

    Args:
        lost: By choice, the loss at each of its options.
        rows: Networks as option indices, ``(N, choices)``.
        distances: Of these networks from the original, ``(N,)``, positive.
    """
    from scipy.optimize import nnls

    losses = np.stack([own[rows[:, choice]] for choice, own in enumerate(lost)], axis=1)
    shares = losses / np.maximum(distances, 1e-12)[:, None]
    sums = shares.sum(axis=1)
    shared = max(float(sums.sum() / max(sums @ sums, 1e-30)), 1e-12)
    shares *= shared
    # A choice that no network has changed yet is drawn, too.
    typical = np.maximum(np.sqrt((shares**2).mean(axis=0)), 1e-3 * shared)
    pull = np.sqrt(PULL * len(rows)) * typical
    weights, _ = nnls(
        np.vstack([shares, np.diag(pull)]), np.concatenate([np.ones(len(rows)), pull])
    )
    return Weighing(tuple(np.maximum(weights, LEAST_WEIGHT).tolist()), (0.0,) * len(lost))


def first_weighings(choices: int) -> dict[str, Weighing]:
    """Return where the search begins: by losses alone, by capacity alone, and by both."""

    def even(losses: float, capacities: float) -> Weighing:
        return Weighing((losses,) * choices, (capacities,) * choices)

    return {"losses": even(1.0, 0.0), "both": even(1.0, 0.2), "capacity": even(0.0, 1.0)}


def narrowed_alike(table: WidthTable, limits: Mapping[str, float]) -> tuple[int, ...] | None:
    """Return all groups narrowed by one factor, the largest within the limits, if there is any.

    No block is replaced.
    """
    factors = np.linspace(1.0, 0.01, 200)
    nearest = [
        [_nearest(choice.options, f) if choice.ordered else full
         for choice, full in zip(table.space, table.full, strict=True)]
        for f in factors
    ]  # fmt: skip
    rows = np.array(list(dict.fromkeys(map(tuple, nearest))), np.int64)
    inside = (table.many(list(limits))(rows) <= np.array(list(limits.values()))).all(axis=1)
    return tuple(int(i) for i in rows[int(np.argmax(inside))]) if inside.any() else None


def _nearest(options: Sequence[int], factor: float) -> int:
    return int(np.argmin([abs(option - factor * options[-1]) for option in options]))
