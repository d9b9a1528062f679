# SPDX-License-Identifier: Apache-2.0
"""What this machine is called in fingerprints and reports."""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """Return the processor's own name, or its architecture where it has none."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return " ".join((platform.processor() or platform.machine() or "unknown").split())
