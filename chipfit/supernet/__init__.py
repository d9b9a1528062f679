# SPDX-License-Identifier: Apache-2.0
"""Networks that hold their alternatives at once: gates, relaxations, expected cost."""

from chipfit.supernet.constraint import AugmentedLagrangian
from chipfit.supernet.expectation import all_codes, expectation_over, expected_cost
from chipfit.supernet.gated_block import GatedBlock, LinearPath
from chipfit.supernet.gated_network import GatedNetwork
from chipfit.supernet.relaxations import gumbel_sigmoid, gumbel_softmax, temperature_at

__all__ = [
    "AugmentedLagrangian",
    "GatedBlock",
    "GatedNetwork",
    "LinearPath",
    "all_codes",
    "expectation_over",
    "expected_cost",
    "gumbel_sigmoid",
    "gumbel_softmax",
    "temperature_at",
]
