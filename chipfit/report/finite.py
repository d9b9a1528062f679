# SPDX-License-Identifier: Apache-2.0
"""Finite numbers out of a journal, whatever else its fields hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> float | None:
    """Return a finite number as it is, and ``None`` for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None


def finite_numbers(value: Any) -> dict[str, float]:
    """Return the finite numbers of a JSON object by key; nothing where it is no object."""
    if not isinstance(value, Mapping):
        return {}
    found = {str(key): finite(item) for key, item in value.items()}
    return {key: number for key, number in found.items() if number is not None}
