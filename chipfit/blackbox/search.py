# SPDX-License-Identifier: Apache-2.0
"""The loop of every black-box search, and the strategies by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chipfit.blackbox.nsga2 import NSGA2
from chipfit.blackbox.order import Row
from chipfit.blackbox.random_search import RandomSearch
from chipfit.blackbox.regularised_evolution import RegularisedEvolution
from chipfit.blackbox.reinforce import Reinforce
from chipfit.blackbox.strategy import Evaluation, Strategy
from chipfit.errors import BadInput

#: By name.
STRATEGIES: dict[str, type[Strategy]] = {
    kind.name: kind for kind in (RandomSearch, RegularisedEvolution, NSGA2, Reinforce)
}
#: Evaluates architectures, in parallel where it can; one result for each, in any order.
Evaluate = Callable[[Sequence[Row]], Sequence[Evaluation]]


def search(
    strategy: Strategy,
    evaluate: Evaluate,
    evaluations: int,
    batch: int = 1,
    after: Callable[[Strategy], None] | None = None,
) -> None:
    """Ask, evaluate and tell until ``evaluations`` architectures were told, or all of the space.

    Whoever keeps ``strategy.state_dict()`` in ``after``, and loads it after an interruption, gets
    the search that would have been without: what was pending is evaluated first.

    Args:
        strategy: Proposes; may have been told something already, which counts.
        evaluate: Returns the figures of the rows that it is given.
        evaluations: In all.
        batch: Most rows that are evaluated at once. The search is less informed where it is larger.
        after: Called with the strategy after each batch.

    Raises:
        BadInput: ``batch`` is not positive, or ``evaluate`` left a row out.
    """
    if batch < 1:
        raise BadInput(f"a batch of {batch} architectures")
    while (told := len(strategy.evaluations)) < evaluations:
        rows = strategy.pending or strategy.ask(min(batch, evaluations - told))
        if not rows:
            return
        for found in evaluate(rows):
            strategy.tell(found.row, found.values, found.violation)
        if strategy.pending:
            raise BadInput(f"evaluate returned nothing for {strategy.pending[0]}")
        if after is not None:
            after(strategy)
