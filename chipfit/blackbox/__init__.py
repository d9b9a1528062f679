# SPDX-License-Identifier: Apache-2.0
"""Black-box search: ask for architectures, tell their figures.

>>> from chipfit.blackbox import Evaluation, RegularisedEvolution, search
>>> strategy = RegularisedEvolution((2,) * 6, population=8, sample=3)
>>> search(strategy, lambda rows: [Evaluation(row, (sum(row),)) for row in rows], 50)
>>> strategy.front()[0].row
(1, 1, 1, 1, 1, 1)
"""

from chipfit.blackbox.front import (
    as_costs,
    crowding_distance,
    hypervolume,
    non_dominated,
    ranks,
)
from chipfit.blackbox.nsga2 import NSGA2
from chipfit.blackbox.order import Row
from chipfit.blackbox.random_search import RandomSearch
from chipfit.blackbox.regularised_evolution import RegularisedEvolution
from chipfit.blackbox.reinforce import Reinforce, mnasnet_reward
from chipfit.blackbox.search import STRATEGIES, search
from chipfit.blackbox.strategy import Evaluation, Strategy, window_violation

__all__ = [
    "NSGA2",
    "STRATEGIES",
    "Evaluation",
    "RandomSearch",
    "RegularisedEvolution",
    "Reinforce",
    "Row",
    "Strategy",
    "as_costs",
    "crowding_distance",
    "hypervolume",
    "mnasnet_reward",
    "non_dominated",
    "ranks",
    "search",
    "window_violation",
]
