# SPDX-License-Identifier: Apache-2.0
"""The folder in which chipfit keeps what it fetched or paid for once."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$CHIPFIT_CACHE``, or the user's cache folder; it need not exist yet."""
    chosen = os.environ.get("CHIPFIT_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "chipfit"
