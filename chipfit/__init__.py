# SPDX-License-Identifier: Apache-2.0
"""Fit any neural network to a chip: budgets in the device's own currency, a family back.

>>> import chipfit as cf
>>> net = cf.nets.create("tiny_mobilenet_v2", num_classes=10)
>>> print(cf.profile(net, "analytic", input_shape=(1, 1, 28, 28)).cost.total["macs"] > 0)
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from chipfit import (
        allocate,
        cost,
        errors,
        export,
        graph,
        methods,
        nets,
        report,
        rewrite,
        scores,
        space,
        targets,
        tasks,
        train,
    )
    from chipfit.cost.budget import Budget
    from chipfit.flow.collapse import collapse
    from chipfit.flow.compare import compare
    from chipfit.flow.explain import explain
    from chipfit.flow.fit import fit
    from chipfit.flow.inspect import inspect
    from chipfit.flow.profile import profile
    from chipfit.flow.result import open_run
    from chipfit.flow.verify import verify
    from chipfit.targets import create as target

#: Where each name comes from; it is imported when first used.
_PLACES = {
    "Budget": "chipfit.cost.budget:Budget",
    "collapse": "chipfit.flow.collapse:collapse",
    "compare": "chipfit.flow.compare:compare",
    "explain": "chipfit.flow.explain:explain",
    "fit": "chipfit.flow.fit:fit",
    "inspect": "chipfit.flow.inspect:inspect",
    "open_run": "chipfit.flow.result:open_run",
    "profile": "chipfit.flow.profile:profile",
    "target": "chipfit.targets:create",
    "verify": "chipfit.flow.verify:verify",
}
_PACKAGES = (
    "allocate", "cost", "errors", "export", "graph", "methods", "nets", "report", "rewrite",
    "scores", "space", "targets", "tasks", "train",
)  # fmt: skip

__all__ = [
    "Budget", "allocate", "collapse", "compare", "cost", "errors", "explain", "export", "fit",
    "graph", "inspect", "methods", "nets", "open_run", "profile", "report", "rewrite", "scores",
    "space", "target", "targets", "tasks", "train", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        module, _, attribute = _PLACES[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    if name in _PACKAGES:
        return importlib.import_module(f"chipfit.{name}")
    raise AttributeError(f"module 'chipfit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
