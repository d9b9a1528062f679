# SPDX-License-Identifier: Apache-2.0
"""What there is: networks, targets, methods and data sets, as rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chipfit.registry import Registry


def _rows(registry: Registry) -> list[dict[str, Any]]:
    return [
        {"name": entry.name, "summary": entry.summary}
        | ({"source": entry.source} if entry.source else {})
        for entry in registry
    ]


def list_nets() -> list[dict[str, Any]]:
    """Return the networks of the zoo."""
    from chipfit.nets.registry import NETS

    return _rows(NETS)


def list_targets() -> list[dict[str, Any]]:
    """Return the devices."""
    from chipfit.targets import TARGETS

    return _rows(TARGETS)


def list_methods() -> list[dict[str, Any]]:
    """Return the methods with their papers and options."""
    from chipfit.methods.base import METHODS

    rows = _rows(METHODS)
    for row, entry in zip(rows, METHODS, strict=True):
        row["options"] = dict(entry.value.defaults)
    return rows


def list_data() -> list[dict[str, Any]]:
    """Return the data sets."""
    from chipfit.tasks.data import DATASETS

    return _rows(DATASETS)


#: The listing behind each command.
LISTINGS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "nets": list_nets, "targets": list_targets, "methods": list_methods, "data": list_data,
}  # fmt: skip
