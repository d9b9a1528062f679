# SPDX-License-Identifier: Apache-2.0
"""A process that may crash, hang or run out of memory, and is asked again all the same."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

Answer = dict[str, Any]
#: Seconds that a fresh child may take to import everything, on top of the first question's limit.
START_SECONDS = 120.0


class Child:
    """A process that answers questions; a new one is started after a crash or a hang.

    Args:
        module: Runs as ``python -m MODULE MEMORY_GIB``, reads questions and writes answers, each a
            line of JSON.
        memory_gib: Most address space that it may use.
    """

    def __init__(self, module: str, memory_gib: float) -> None:
        self._module, self._memory_gib = module, memory_gib
        self._process: subprocess.Popen[str] | None = None

    def ask(self, question: Sequence[Any], seconds: float) -> Answer:
        """Return what the child says to ``question``, or why it said nothing."""
        fresh = self._process is None
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        start = time.monotonic()
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        limit = seconds + (START_SECONDS if fresh else 0.0)
        ready, _, _ = select.select([process.stdout], [], [], limit)
        line = process.stdout.readline() if ready else ""
        if line:
            return {**json.loads(line), "seconds": round(time.monotonic() - start, 2)}
        if not ready:
            self.stop()
            return {"reason": f"takes over {seconds:g} s", "cut": True}
        code = process.wait()
        self.stop()
        return {"reason": f"the process ended with code {code}"}

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module, str(self._memory_gib)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        return self._process

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
