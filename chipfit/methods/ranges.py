# SPDX-License-Identifier: Apache-2.0
"""Refusing options of a method that are out of range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chipfit.errors import BadInput


def require_in_range(method: str, settings: Mapping[str, Any], good: Mapping[str, bool]) -> None:
    """Refuse the first option that is out of range.

    Args:
        method: Whose options they are.
        settings: Its options by name.
        good: Whether each of them can be used.

    Raises:
        BadInput: One cannot.
    """
    for name, usable in good.items():
        if not usable:
            raise BadInput(f"{method}: {name}={settings[name]!r} is out of range")
