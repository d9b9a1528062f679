# SPDX-License-Identifier: Apache-2.0
"""Random search: the baseline that every other strategy has to beat."""

from __future__ import annotations

from chipfit.blackbox.order import Row
from chipfit.blackbox.strategy import Strategy


class RandomSearch(Strategy):
    """Uniformly random architectures, each at most once; any number of objectives.

    Arguments are those of :class:`~chipfit.blackbox.strategy.Strategy`.
    """

    name = "random"
    several = True

    def _propose(self) -> Row | None:
        return self._fresh()
