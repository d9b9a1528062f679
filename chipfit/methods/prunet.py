# SPDX-License-Identifier: Apache-2.0
"""PruNet: hidden widths in closing windows, and blocks and layers pruned during the search.

Kierat et al., "Tiered Pruning for Efficient Differentiable Inference-Aware Neural Architecture
Search", arXiv 2209.11785: one tier searches hidden widths with two instances of a block, one prunes
blocks, one prunes layers. The rules by which each tier acts are our variant (:class:`PruNet`), and
so is the constraint in the place of the paper's latency loss. Nothing is pruned without which the
budget could not be met.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from chipfit.methods.base import METHODS, Problem
from chipfit.methods.space_reach import best_rows
from chipfit.methods.supernet_search import Opened, SupernetSearch
from chipfit.supernet.search_rule import SearchRule
from chipfit.supernet.supernet import Supernet
from chipfit.supernet.tiered_pruning import TieredPruning, Tiers, Values, scores_of
from chipfit.supernet.windowed_supernet import WindowedSupernet
from chipfit.train.randomness import stream_seed


@METHODS.register(
    "prunet",
    summary="hidden widths in closing windows; blocks and layers pruned while it searches",
    source="Kierat et al., arXiv 2209.11785",
)
class PruNet(SupernetSearch):
    """The method, with the options of :class:`~chipfit.methods.supernet_search.SupernetSearch`.

    Any space is searched: operations that are one block at several hidden widths share its weights
    (:func:`~chipfit.supernet.hidden_grid.hidden_grids`), all others stand by themselves. After the
    warm-up there are ``checks`` times at which:

    1. A window moves where one side has a share of at least ``move_start``, at the end
       ``move_end``, of both sides' probability.
    2. A choice loses its least probable block where that falls below a share of the mean
       probability; the share rises from 0 to ``prune``.
    3. A layer is dropped, its skip is all that stays, where the running average of the other
       blocks' probability has been below 0.3 at three checks; one per stage, the last. A stage ends
       at every layer that cannot be skipped.

    When the budget decides, a width beside a window stands for its nearer side, at a lower score.
    """

    name: ClassVar[str] = "prunet"
    own: ClassVar[Mapping[str, Any]] = {
        "temperature_start": 5.0, "temperature_end": 0.1, "checks": 40, "move_start": 0.6,
        "move_end": 0.7, "prune": 0.5, "expansions": (1.5, 2.0, 3.0, 4.0, 5.0, 6.0),
    }  # fmt: skip

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise ``BadInput`` where an option is out of range."""
        super().check_settings(settings)
        tiers_of(settings)

    def make_supernet(self, problem: Problem, opened: Opened) -> Supernet:
        """Return the supernet with all windows open."""
        seed = stream_seed(problem.seed, self.name, "weights")
        return WindowedSupernet(problem.net, opened.blocks, seed=seed)

    def make_rule(self, problem: Problem, opened: Opened) -> SearchRule:
        """Return Gumbel-softmax for weights and logits, with what happens between steps."""

        def witness(scores: Sequence[Values]) -> Sequence[int] | None:
            floor, limits = float(opened.settings["floor"]), problem.budget.limits
            return next(iter(best_rows(opened.costs, scores, limits, 1, floor)), None)

        return TieredPruning(tiers_of(opened.settings), witness, problem.progress)

    def rows(
        self, problem: Problem, opened: Opened, supernet: Supernet, limits: Mapping[str, float]
    ) -> list[tuple[int, ...]]:
        """Return the architectures to judge, the best first."""
        assert isinstance(supernet, WindowedSupernet)  # made above
        settings = opened.settings
        count, floor = int(settings["proposals"]), float(settings["floor"])
        return best_rows(opened.costs, scores_of(supernet), limits, count, floor)


def tiers_of(settings: Mapping[str, Any]) -> Tiers:
    """Return when the tiers act.

    Raises:
        BadInput: A value is out of range.
    """
    return Tiers(
        int(settings["checks"]), float(settings["move_start"]), float(settings["move_end"]),
        float(settings["prune"]),
    )  # fmt: skip
