# SPDX-License-Identifier: Apache-2.0
"""ProxylessNAS: one path in memory, so that the search needs no proxy of task or device.

Cai, Zhu and Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware",
ICLR 2019, arXiv 1812.00332. What differs here: the budget is a constraint on the expected cost,
where the paper adds a multiple of it (``penalty=additive`` is its code's form).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from chipfit.errors import BadInput
from chipfit.methods.base import METHODS, Problem
from chipfit.methods.ranges import require_in_range
from chipfit.methods.supernet_search import Opened, SupernetSearch
from chipfit.supernet.gate_rule import GateRule
from chipfit.supernet.policy_rule import PolicyRule, Values
from chipfit.supernet.search_rule import SearchRule
from chipfit.supernet.search_state import LoopSettings

UPDATES = ("gradient", "reinforce")


@METHODS.register(
    "proxylessnas",
    summary="one sampled path at a time; logits by binary gates, or as a policy by REINFORCE",
    source="Cai et al., ICLR 2019, arXiv 1812.00332",
)
class ProxylessNAS(SupernetSearch):
    """The method, with the options of :class:`~chipfit.methods.supernet_search.SupernetSearch`.

    ``update`` says how logits learn. With ``gradient``
    (:class:`~chipfit.supernet.gate_rule.GateRule`) one path is active and the gates of ``paths``
    are compared (2, or 0 for all).

    With ``reinforce`` (:class:`~chipfit.supernet.policy_rule.PolicyRule`) ``samples``
    architectures are judged on one batch of the logits' half of the data, and the reward is
    ``exp(-loss) (cost / budget)^-exponent``. The paper has the accuracy in place of ``exp(-loss)``,
    which is the geometric mean of the true classes' probabilities where the loss is cross-entropy,
    and is defined for every task whose loss is not negative. The ``penalty`` is added to the
    policy's loss; the paper has none beside the reward (``penalty=none``). 0.1 is the ``exponent``
    of the paper's code.

    Adam has no momentum here, as in the paper's code: logits of paths that were not sampled stay.
    As a step then moves few of them, ``architecture_rate`` is higher than that of other searches.
    """

    name: ClassVar[str] = "proxylessnas"
    own: ClassVar[Mapping[str, Any]] = {
        "update": "gradient", "paths": 2, "samples": 10, "exponent": 0.1,
        "architecture_rate": 0.05,
    }  # fmt: skip

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise ``BadInput`` where an option is out of range."""
        super().check_settings(settings)
        if settings["update"] not in UPDATES:
            raise BadInput(
                f"{self.name}: unknown update {settings['update']!r}",
                f"known: {', '.join(UPDATES)}",
            )
        ranges = {
            "paths": int(settings["paths"]) == 0 or int(settings["paths"]) >= 2,
            "samples": int(settings["samples"]) >= 2,
            "exponent": float(settings["exponent"]) >= 0,
        }
        require_in_range(self.name, settings, ranges)
        if settings["update"] == "reinforce" and settings["penalty"] == "multiplicative":
            raise BadInput(
                f"{self.name}: a policy's loss has no meaningful product with the cost",
                "with update=reinforce the exponent does it; or use penalty=constraint",
            )

    def loop_settings(self, problem: Problem, settings: Mapping[str, Any]) -> LoopSettings:
        """Return the settings of the loop, without momentum of the logits."""
        return replace(super().loop_settings(problem, settings), architecture_betas=(0.0, 0.999))

    def make_rule(self, problem: Problem, opened: Opened) -> SearchRule:
        """Return binary gates, or the policy."""
        settings = opened.settings
        if settings["update"] == "gradient":
            return GateRule(int(settings["paths"]))
        bounds = dict(problem.budget.limits)
        functions = {key: opened.costs.of(key) for key in bounds}

        def reward(losses: Values, rows: NDArray[np.int64]) -> Values:
            found = np.exp(-losses)
            for key, bound in bounds.items():
                found = found * (functions[key](rows) / bound) ** -float(settings["exponent"])
            return found

        return PolicyRule(reward, int(settings["samples"]))
