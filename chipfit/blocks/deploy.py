# SPDX-License-Identifier: Apache-2.0
"""``deploy``: every block of a network as it is meant to run on a device."""

from __future__ import annotations

import copy

from torch import nn


def deploy(net: nn.Module) -> nn.Module:
    """Return a copy in which every block that can merge itself has done so.

    A block can if it has a method ``deployed()``; the outputs in evaluation mode stay equal. What
    no block knows about itself is found by :func:`chipfit.rewrite.collapse`.
    """
    merged = _deployed(net)
    if merged is not None:
        return copy.deepcopy(merged)
    net = copy.deepcopy(net)
    _deploy_children(net, {})
    return net


def _deploy_children(net: nn.Module, seen: dict[nn.Module, nn.Module]) -> None:
    """Replace children in place; a module that stands in several places stays one."""
    for name, child in list(net._modules.items()):
        if child is None:
            continue
        if child not in seen:
            merged = _deployed(child)
            seen[child] = child if merged is None else merged
            if merged is None:
                _deploy_children(child, seen)
        net._modules[name] = seen[child]


def _deployed(module: nn.Module) -> nn.Module | None:
    method = getattr(module, "deployed", None)
    return method() if callable(method) else None
