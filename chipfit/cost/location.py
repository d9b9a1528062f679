# SPDX-License-Identifier: Apache-2.0
"""Where the user's own cost table lies: prices are worth keeping from run to run."""

from __future__ import annotations

import os
from pathlib import Path

from chipfit.cache import cache_folder


def default_table_path() -> Path:
    """Return ``$CHIPFIT_TABLE``, or ``costs.sqlite`` in chipfit's cache folder."""
    chosen = os.environ.get("CHIPFIT_TABLE")
    return Path(chosen) if chosen else cache_folder() / "costs.sqlite"
