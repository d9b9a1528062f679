# SPDX-License-Identifier: Apache-2.0
"""RARTS: weights and a copy of them learn from one half of the data each, logits from both.

Xue, Qi and Xin, "RARTS: An Efficient First-Order Relaxed Architecture Search Method", IEEE Access
2022, arXiv 2008.03901. The relaxed objective is our reconstruction
(:mod:`chipfit.supernet.relaxed_copies`), and so is the form of the width search
(:mod:`chipfit.methods.rarts_width`). The budget, which the paper does not have, is a constraint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from chipfit.errors import BadInput
from chipfit.methods.base import METHODS, Problem
from chipfit.methods.bilevel_search import BilevelSearch
from chipfit.methods.rarts_width import WidthSearch
from chipfit.runs.candidate import Candidate
from chipfit.runs.run import Run
from chipfit.supernet.bilevel_rules import RartsRule
from chipfit.supernet.search_rule import SearchRule


@METHODS.register(
    "rarts",
    summary="DARTS on one level: coupled copies of the weights, no second derivatives",
    source="Xue, Qi and Xin, IEEE Access 2022, arXiv 2008.03901",
)
class Rarts(BilevelSearch):
    """The method, with the options of :class:`~chipfit.methods.supernet_search.SupernetSearch`.

    ``train_weight`` and ``coupling`` are the factors of the training loss and of the distance
    between weights and copy. With ``fresh`` the logits' gradient is taken at the new weights, by
    four passes a step; without, by two. ``curvature_every`` and ``architecture_decay`` are as for
    DARTS.

    ``search=width`` keeps the operations and removes channels, in groups of at most ``widths``
    widths that the target likes; ``shrinkage`` is how far the penalty alone would take the gate of
    a channel of average price from 1 towards 0.
    """

    name: ClassVar[str] = "rarts"
    own: ClassVar[Mapping[str, Any]] = {
        "train_weight": 10.0, "coupling": 10.0, "fresh": True, "curvature_every": 0,
        "architecture_decay": 1e-3, "search": "topology", "widths": 16, "shrinkage": 1.0,
    }  # fmt: skip

    def rule_of(self, settings: Mapping[str, Any]) -> SearchRule:
        """Return softmax with coupled copies."""
        return RartsRule(
            float(settings["train_weight"]), float(settings["coupling"]),
            bool(settings["fresh"]), int(settings["curvature_every"]),
        )  # fmt: skip

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise ``BadInput`` where an option is out of range."""
        super().check_settings(settings)
        if settings["search"] not in ("topology", "width"):
            raise BadInput(f"rarts: search={settings['search']!r}", "topology or width")

    def check(self, problem: Problem) -> None:
        """Raise where nothing is within the budget; needs no trained weights."""
        if self._width(problem) is None:
            super().check(problem)

    def search(self, problem: Problem, run: Run) -> Iterator[Candidate]:
        """Yield one network per budget."""
        width = self._width(problem)
        if width is None:
            yield from super().search(problem, run)
            return
        count = int(width.settings["levels"])
        yield from width.members(run, self._levels(problem, run, count, problem.original_cost))

    def _width(self, problem: Problem) -> WidthSearch | None:
        settings = {**self.defaults, **problem.options}
        self.check_settings(settings)
        if settings["search"] != "width":
            return None
        return WidthSearch(problem, settings, self.loop_settings(problem, settings))
