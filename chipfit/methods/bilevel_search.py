# SPDX-License-Identifier: Apache-2.0
"""``BilevelSearch``: what DARTS and RARTS share beside the supernet."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from chipfit.methods.base import Problem
from chipfit.methods.cell_decode import rule_rows, rule_within
from chipfit.methods.supernet_search import Opened, SupernetSearch
from chipfit.space.node_rule import node_rule_of
from chipfit.supernet.search_rule import SearchRule
from chipfit.supernet.search_state import LoopSettings
from chipfit.supernet.supernet import Supernet


class BilevelSearch(SupernetSearch):
    """What searches by softmax share: decay of the logits, and cells that keep their best edges.

    A network of cells says by its attribute ``decode_nodes``
    (:class:`~chipfit.space.node_rule.NodeRule`) how many edges a node keeps; of others every choice
    takes its likeliest operation.
    """

    def loop_settings(self, problem: Problem, settings: Mapping[str, Any]) -> LoopSettings:
        """Return the settings of the loop."""
        common = super().loop_settings(problem, settings)
        return replace(common, architecture_decay=float(settings["architecture_decay"]))

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise ``BadInput`` where an option is out of range."""
        super().check_settings(settings)
        self.rule_of(settings)

    @abstractmethod
    def rule_of(self, settings: Mapping[str, Any]) -> SearchRule:
        """Return the rule that the settings ask for."""

    def make_rule(self, problem: Problem, opened: Opened) -> SearchRule:
        """Return what a step of the search is."""
        return self.rule_of(opened.settings)

    def rows(
        self, problem: Problem, opened: Opened, supernet: Supernet, limits: Mapping[str, float]
    ) -> list[tuple[int, ...]]:
        """Return the architectures to judge, as option indices, the most probable first."""
        rule = rule_within(opened.costs.space, node_rule_of(problem.net))
        if rule is None:
            return super().rows(problem, opened, supernet, limits)
        with torch.no_grad():
            probabilities = [p.numpy() for p in supernet.probabilities()]
        settings = opened.settings
        return rule_rows(
            opened.costs, probabilities, limits, rule, int(settings["proposals"]),
            float(settings["floor"]),
        )  # fmt: skip
