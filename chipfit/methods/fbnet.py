# SPDX-License-Identifier: Apache-2.0
"""FBNet: a stochastic supernet, Gumbel-softmax, and the device's latency in the loss.

Wu et al., "FBNet: Hardware-Aware Efficient ConvNet Design via Differentiable Neural Architecture
Search", CVPR 2019, arXiv 1812.03443. What differs here: the budget is a constraint on the expected
cost, where the paper multiplies the loss by a power of the latency's logarithm
(``penalty=multiplicative`` is its unit-safe form); weights learn from the task's loss alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from chipfit.methods.base import METHODS, Problem
from chipfit.methods.supernet_search import Opened, SupernetSearch
from chipfit.supernet.mixture import GumbelSoftmax
from chipfit.supernet.search_rule import SearchRule


@METHODS.register(
    "fbnet",
    summary="all candidates mixed by Gumbel-softmax, logits under the budget as a constraint",
    source="Wu et al., CVPR 2019, arXiv 1812.03443",
)
class FBNet(SupernetSearch):
    """The method, with the options of :class:`~chipfit.methods.supernet_search.SupernetSearch`.

    The temperature falls from 5 to 0.1, as the paper's does over its 90 epochs (section 4.1).
    ``hard`` draws one candidate with the gradient of the soft sample.
    """

    name: ClassVar[str] = "fbnet"
    own: ClassVar[Mapping[str, Any]] = {
        "temperature_start": 5.0, "temperature_end": 0.1, "hard": False,
    }  # fmt: skip

    def make_rule(self, problem: Problem, opened: Opened) -> SearchRule:
        """Return Gumbel-softmax for weights and logits."""
        return SearchRule(GumbelSoftmax(bool(opened.settings["hard"])))
