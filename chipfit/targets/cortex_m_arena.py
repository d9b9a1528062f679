# SPDX-License-Identifier: Apache-2.0
"""The memory that tflite-micro needs for a model, measured by loading it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from dataclasses import dataclass

from chipfit.errors import MissingBackend, UnsupportedOp
from chipfit.targets import isolated_program
from chipfit.targets.isolated import Isolated

_INTERPRETER = Isolated("tflite_micro")
#: Arenas of the files seen last, by their digests: the cores share them.
_KNOWN: dict[bytes, Arena] = {}
_KEPT = 4096
_MISSING = re.compile(r"Didn't find op for builtin opcode '([A-Z_0-9]+)'")


@dataclass(frozen=True)
class Arena:
    """A tensor arena.

    Args:
        total_bytes: What a program has to set aside.
        head_bytes: Activations, shared by tensors that do not live at the same time; the same on
            a microcontroller.
        tail_bytes: The runtime's own structures. They hold pointers, so a 32-bit microcontroller
            needs less than the 64-bit machine that this was measured on.
    """

    total_bytes: int
    head_bytes: int
    tail_bytes: int


def tflite_micro_version() -> str:
    """Return the version of the installed interpreter.

    Raises:
        MissingBackend: It is not installed.
    """
    try:
        return importlib.metadata.version("tflite-micro")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingBackend(
            "microcontroller targets need the tflite-micro package", "pip install 'chipfit[mcu]'"
        ) from error


def measure_arena(data: bytes, place: str) -> Arena:
    """Return the arena of a ``.tflite`` file.

    Kernels of the host are the portable ones; CMSIS-NN's ask for some scratch memory on top, for
    a convolution at most four bytes per weight of one output channel.

    Args:
        data: The file.
        place: What it is, for messages.

    Raises:
        MissingBackend: tflite-micro is not installed.
        UnsupportedOp: It has no kernel for an operator, or refuses an operator's parameters.
        BadInput: The file ends the interpreter's process, or keeps it busy for minutes.
    """
    tflite_micro_version()
    key = hashlib.sha256(data).digest()
    if key not in _KNOWN:
        if len(_KNOWN) >= _KEPT:
            _KNOWN.pop(next(iter(_KNOWN)))
        _KNOWN[key] = _arena(data, place)
    return _KNOWN[key]


def _arena(data: bytes, place: str) -> Arena:
    reply = _INTERPRETER.ask({}, data, place)
    log = str(reply["log"])
    sizes = isolated_program.arena_sizes(log)
    if "error" not in reply and len(sizes) == len(("total", "head", "tail")):
        return Arena(sizes["total"], sizes["head"], sizes["tail"])
    missing = _MISSING.search(log)
    if missing:
        raise UnsupportedOp(
            f"tflite-micro has no kernel for {missing[1]} in {place}", "replace the operator"
        )
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    detail = " / ".join(lines[-3:]) or str(reply.get("error", "it gives no reason"))
    if "Failed to allocate" in detail or "Failed to resize" in detail:
        size = isolated_program.ARENA_BYTES >> 20
        raise UnsupportedOp(f"{place} needs a tensor arena of more than {size} MiB: {detail}")
    raise UnsupportedOp(f"tflite-micro cannot load {place}: {detail}")
