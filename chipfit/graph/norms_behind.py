# SPDX-License-Identifier: Apache-2.0
"""Which batch norm stands directly behind which layer."""

from __future__ import annotations

from torch import nn

from chipfit.graph.workload import Workload


def norms_behind(net: nn.Module, workload: Workload) -> dict[str, str]:
    """Return the batch norm that alone reads a convolution or linear layer, by the layer's name.

    Args:
        net: The network.
        workload: Its trace, in which such batch norms are fused with the layer.
    """
    modules = dict(net.named_modules())
    found: dict[str, str] = {}
    for node in workload.nodes:
        for name in node.absorbed:
            if node.module and isinstance(modules.get(name), nn.BatchNorm1d | nn.BatchNorm2d):
                found.setdefault(node.module, name)
    return found
