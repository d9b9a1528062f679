# SPDX-License-Identifier: Apache-2.0
"""Jobs in processes of their own: a damaged file can end, or stop, the library that reads it."""

from __future__ import annotations

import atexit
import json
import os
import selectors
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any, cast

from chipfit.errors import BadInput
from chipfit.targets import isolated_program

#: A job that takes longer is given up.
TIMEOUT_S = 120.0


class Isolated:
    """One job of :mod:`chipfit.targets.isolated_program` in a process of its own.

    The process is started when it is first needed, and again after it died.

    Args:
        job: A key of ``isolated_program.JOBS``.
        timeout_s: After which a request is given up.
    """

    def __init__(self, job: str, timeout_s: float = TIMEOUT_S) -> None:
        self._job = job
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._owner = os.getpid()
        atexit.register(self.stop)

    def ask(self, request: Mapping[str, Any], data: bytes, place: str) -> dict[str, Any]:
        """Return the job's reply.

        Args:
            request: The job's settings.
            data: The file.
            place: What the file is, for messages.

        Raises:
            BadInput: The file ends the process, or keeps it busy for too long.
        """
        with self._lock:
            process = self._running()
            requests, replies = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
            line = b""
            with suppress(BrokenPipeError):
                head = json.dumps(dict(request)).encode() + b"\n"
                requests.write(head + struct.pack("<Q", len(data)) + data)
                requests.flush()
                with selectors.DefaultSelector() as selector:
                    selector.register(replies, selectors.EVENT_READ)
                    if not selector.select(self._timeout_s):
                        self.stop()
                        raise BadInput(
                            f"{self._job} does not finish with {place} in {self._timeout_s:g} s",
                            "the file is damaged, or too large",
                        )
                line = replies.readline()
            if line.endswith(b"\n"):
                reply: dict[str, Any] = json.loads(line)
                return reply
            code = process.wait()
            self.stop()
            raise BadInput(
                f"{self._job} crashes on {place} (exit code {code})",
                "the file is damaged, or holds what the library does not check; write it again",
            )

    def stop(self) -> None:
        """End the process; the next request starts another."""
        if self._process is None or self._owner != os.getpid():
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what a dead process cannot be told is of no use
                    pipe.close()
        self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():  # after a fork the process is the parent's
            self._process, self._owner = None, os.getpid()
        if self._process is None or self._process.poll() is not None:
            self.stop()
            # -P: the program's folder is no place to import from.
            self._process = subprocess.Popen(
                [sys.executable, "-P", isolated_program.__file__, self._job],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        return self._process
