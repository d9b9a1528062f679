# SPDX-License-Identifier: Apache-2.0
"""Keep what a compiled library prints by mistake off standard output."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: HiGHS 1.12 prints a line with this although its output is off.
STRAY = b"HighsMipSolverData::"
_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def without_stray_lines() -> Iterator[None]:
    """Drop lines that HiGHS prints on the process's standard output; let all others through.

    Programs read standard output (``--json``), and the option that silences HiGHS misses some.
    """
    with _ONE_AT_A_TIME:
        try:
            kept = os.dup(1)
        except OSError:  # there is no standard output
            yield
            return
        with tempfile.TemporaryFile() as caught:
            _flush()
            os.dup2(caught.fileno(), 1)
            try:
                yield
            finally:
                _flush()
                os.dup2(kept, 1)
                os.close(kept)
                caught.seek(0)
                for line in caught:
                    if STRAY not in line:
                        os.write(1, line)


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()
    # The C library's own buffer, which Python's flush does not reach.
    ctypes.CDLL(None).fflush(None)
