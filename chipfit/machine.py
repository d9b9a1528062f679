# SPDX-License-Identifier: Apache-2.0
"""What this machine is: its name in fingerprints and reports, and what its processor can do."""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path

#: Flags of x86 processors that multiply bytes and add to 32 bits in one instruction.
VNNI_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "avx512vnni", "avxvnni"})
#: The same on Arm (``sdot`` and ``udot``).
DOT_FLAGS = frozenset({"asimddp"})


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """Return the processor's own name, or its architecture where it has none.

    Virtual machines hide the model behind a name such as ``AMD EPYC``: its numbers tell it.
    """
    name = _field("model name")
    family, model = _field("cpu family"), _field("model")
    if name and family and model:
        return f"{name} (family {family} model {model})"
    return name or " ".join((platform.processor() or platform.machine() or "unknown").split())


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """Return the processor's features as Linux names them; empty where they are unknown."""
    return frozenset((_field("flags") or _field("Features")).split())


def has_vnni() -> bool:
    """Whether the processor adds products of bytes straight to 32 bits (VNNI, or Arm's dot).

    Without it, x86 runtimes multiply unsigned by signed bytes into sums of 16 bits, which
    saturate where both factors use all of their 8 bits (Intel's ``vpmaddubsw``).
    """
    return bool(cpu_flags() & (VNNI_FLAGS | DOT_FLAGS))


def _field(name: str) -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.split(":")[0].strip() == name:
                return " ".join(line.partition(":")[2].split())
    return ""
