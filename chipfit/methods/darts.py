# SPDX-License-Identifier: Apache-2.0
"""DARTS: all candidates mixed by softmax, logits that look one step of the weights ahead.

Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055. What differs
here: the budget, which the paper does not have, is a constraint on the expected cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from chipfit.methods.base import METHODS
from chipfit.methods.bilevel_search import BilevelSearch
from chipfit.supernet.bilevel_rules import DartsRule
from chipfit.supernet.search_rule import SearchRule


@METHODS.register(
    "darts",
    summary="all candidates mixed by softmax, weights and logits on a half of the data each",
    source="Liu et al., ICLR 2019, arXiv 1806.09055",
)
class Darts(BilevelSearch):
    """The method, with the options of :class:`~chipfit.methods.supernet_search.SupernetSearch`.

    ``order`` 2 differentiates through a step of the weights, at about three times the cost of 1.
    Every ``curvature_every`` steps the dominant eigenvalue of the validation loss's Hessian in the
    logits is recorded (0: never). ``architecture_decay`` is Adam's for the logits.
    """

    name: ClassVar[str] = "darts"
    own: ClassVar[Mapping[str, Any]] = {
        "order": 1, "curvature_every": 0, "architecture_decay": 1e-3,
    }  # fmt: skip

    def rule_of(self, settings: Mapping[str, Any]) -> SearchRule:
        """Return softmax with first or second order."""
        return DartsRule(int(settings["order"]), int(settings["curvature_every"]))
