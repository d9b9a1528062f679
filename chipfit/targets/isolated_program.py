# SPDX-License-Identifier: Apache-2.0
"""The program behind :mod:`chipfit.targets.isolated`: one job on a file, again and again.

It is run as a file, with the name of the job. It imports nothing of chipfit, so that it starts
quickly. A request is a line of JSON, a length of eight bytes and that many bytes of data; a reply
is a line of JSON.
"""

from __future__ import annotations

import json
import os
import re
import struct
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any

#: The interpreter's arena; unused pages cost nothing.
ARENA_BYTES = 512 << 20
#: A damaged file may ask for any amount of memory.
_LIMIT_BYTES = 16 << 30

Reply = dict[str, Any]


def tflite_micro(request: Reply, data: bytes) -> Reply:
    """Load a model, so that the interpreter prints its arena."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(data, arena_size=ARENA_BYTES)
    interpreter.print_allocations()
    return {}


def vela(request: Reply, data: bytes) -> Reply:
    """Compile a file with Vela; what it writes lies in the folder that its arguments name."""
    from ethosu.vela import vela as compiler
    from ethosu.vela.errors import VelaError

    try:
        return {"code": compiler.main(request["arguments"])}
    except VelaError as error:
        return {"error": str(error.data), "type": "VelaError"}


JOBS: dict[str, Callable[[Reply, bytes], Reply]] = {"tflite_micro": tflite_micro, "vela": vela}


def _serve(job: Callable[[Reply, bytes], Reply]) -> None:
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    log = tempfile.TemporaryFile()  # noqa: SIM115
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_LIMIT_BYTES, _LIMIT_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while line := requests.readline():
        os.ftruncate(log.fileno(), 0)
        os.lseek(log.fileno(), 0, os.SEEK_SET)
        data = requests.read(struct.unpack("<Q", requests.read(8))[0])
        try:
            reply = job(json.loads(line), data)
        except (Exception, SystemExit) as error:  # libraries raise what they like
            reply = {"error": str(error) or repr(error), "type": type(error).__name__}
        sys.stdout.flush()
        sys.stderr.flush()
        text = os.pread(log.fileno(), os.fstat(log.fileno()).st_size, 0).decode(errors="replace")
        replies.write(json.dumps(reply | {"log": text}).encode() + b"\n")
        replies.flush()


def arena_sizes(log: str) -> dict[str, int]:
    """Return ``total``, ``head`` and ``tail`` of the arena from what the interpreter printed."""
    found = re.findall(r"Arena allocation (total|head|tail) (\d+) bytes", log)
    return {name: int(size) for name, size in found}


if __name__ == "__main__":
    _serve(JOBS[sys.argv[1]])
