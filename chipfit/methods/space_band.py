# SPDX-License-Identifier: Apache-2.0
"""Random architectures inside a band of costs, however rare they are among all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from chipfit.methods.space_costs import SpaceCosts

Values = NDArray[np.float64]

#: Architectures drawn at once, and how often, before fewer than were asked for are returned.
_DRAWN, _TRIES = 256, 64


def random_in_band(
    costs: SpaceCosts,
    high: Mapping[str, float],
    low: float,
    count: int,
    seed: int,
    allowed: Sequence[Sequence[int]] | None = None,
) -> list[tuple[int, ...]]:
    """Return different random architectures that cost from ``low`` to ``high``.

    The options of a choice are drawn independently and evenly, or, where the mean cost of such
    draws is outside of the band, with probabilities that fall or rise exponentially with what each
    adds to the cost, such that the mean is at the nearer end of the band; what is outside is thrown
    away. Where costs are sums over choices, all architectures of one cost are equally likely so,
    and those inside a narrow band nearly are.

    Args:
        costs: Of the space.
        high: By key, the most.
        low: Of the first key, the least.
        count: Wanted at most.
        seed: Of the draws.
        allowed: By choice, the options that may be taken; all of them where ``None``.

    Returns:
        Rows of option indices; fewer than ``count`` where the band holds no more, or they are
        too rare.
    """
    rng = np.random.default_rng(seed)
    sizes = [len(choice.options) for choice in costs.space]
    options = [list(range(n)) for n in sizes] if allowed is None else [list(a) for a in allowed]
    first, top = next(iter(high.items()))
    probabilities = _tilted(costs, first, (low, top), sizes, options)
    functions = {key: costs.of(key) for key in high}
    found: dict[tuple[int, ...], None] = {}
    for _ in range(_TRIES):
        drawn = [rng.choice(len(p), _DRAWN, p=p) for p in probabilities]
        codes = np.stack(drawn, axis=1).astype(np.int64)
        inside = functions[first](codes) >= low
        for key, limit in high.items():
            inside &= functions[key](codes) <= limit
        found |= dict.fromkeys(tuple(int(i) for i in row) for row in codes[inside])
        if len(found) >= count:
            break
    return list(found)[:count]


def _tilted(
    costs: SpaceCosts, key: str, band: tuple[float, float], sizes: Sequence[int],
    options: Sequence[Sequence[int]],
) -> list[Values]:  # fmt: skip
    """Return probabilities of every choice's options under which the mean cost is in the band."""
    expected = costs.expectation(key)
    even = []
    for size, own in zip(sizes, options, strict=True):
        p = torch.zeros(size, dtype=torch.float64)
        p[list(own)] = 1.0 / len(own)
        even.append(p.requires_grad_())
    middle = expected(even)
    middle.backward()
    mean = min(max(float(middle.detach()), band[0]), band[1])
    added = []
    for p, own in zip(even, options, strict=True):
        slope = np.zeros(len(p)) if p.grad is None else p.grad.numpy().copy()
        added.append(slope - slope[list(own)].mean())

    def tilted(strength: float) -> list[Values]:
        found = []
        for slope, own in zip(added, options, strict=True):
            exponent = np.full(len(slope), -np.inf)
            exponent[list(own)] = -strength * slope[list(own)]
            weights = np.exp(exponent - exponent.max())
            found.append(weights / weights.sum())
        return found

    reach = max(float(np.abs(slope[list(own)]).max()) for slope, own in zip(added, options))
    if reach == 0.0 or mean == float(middle.detach()):
        return tilted(0.0)
    below, above = -50.0 / reach, 50.0 / reach
    for _ in range(50):
        strength = (below + above) / 2
        with torch.no_grad():
            value = float(expected([torch.as_tensor(p) for p in tilted(strength)]))
        below, above = (strength, above) if value > mean else (below, strength)
    return tilted((below + above) / 2)
