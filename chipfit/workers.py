# SPDX-License-Identifier: Apache-2.0
"""Worker processes that live as long as their pool and die with their parent.

They are plain child processes that talk through pipes, so a script needs no ``__main__`` guard
and a notebook can use them. Each runs PyTorch on one thread: a result then depends neither on
how many workers there are nor on which of them computed it.
"""

from __future__ import annotations

import os
import queue
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import cloudpickle

from chipfit.errors import ChipfitError

#: Computes one item in a worker: ``function(setup, item) -> result``.
Function = Callable[[Any, Any], Any]


def send(pipe: BinaryIO, message: Any) -> None:
    """Write one message, preceded by its length."""
    data = cloudpickle.dumps(message)
    pipe.write(struct.pack("<Q", len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: BinaryIO) -> Any:
    """Read one message.

    Raises:
        EOFError: The other side is gone.
    """
    head = pipe.read(8)
    if len(head) < 8:
        raise EOFError
    (size,) = struct.unpack("<Q", head)
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return cloudpickle.loads(data)


_reply_pipe: BinaryIO | None = None


def tell(line: str) -> None:
    """Send one line of progress from a worker to its parent; elsewhere it goes nowhere."""
    if _reply_pipe is not None:
        send(_reply_pipe, ("progress", line))


def serve(requests: BinaryIO, replies: BinaryIO, setup: Any) -> None:
    """Answer requests in a worker process until the parent goes away."""
    global _reply_pipe
    _reply_pipe = replies
    while True:
        function, item = receive(requests)
        try:
            reply = ("result", function(setup, item))
        except ChipfitError as error:
            reply = ("error", error)
        except Exception as error:
            text = "".join(traceback.format_exception(error)[-3:]).strip()
            reply = ("error", ChipfitError(f"a worker process failed: {text}"))
        send(replies, reply)


class WorkerPool:
    """A fixed number of worker processes, started when first needed.

    Args:
        count: Number of processes, at least one.
        setup: Sent to each worker once, and handed to every function it runs.
        progress: Called, from any thread, with the lines that workers :func:`tell`.
    """

    def __init__(
        self, count: int, setup: Any = None, progress: Callable[[str], None] | None = None
    ) -> None:
        self.count = max(1, count)
        self._progress = progress or (lambda line: None)
        self._setup = setup
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._all: list[subprocess.Popen[bytes]] = []
        self._closed = False

    def _start(self) -> None:
        self._closed = False
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        environment.pop("WORLD_SIZE", None)  # workers are none of the processes of torchrun
        for _ in range(self.count):
            process = subprocess.Popen(
                [sys.executable, "-m", "chipfit.worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
            )  # fmt: skip
            self._all.append(process)
            send(process.stdin, {"path": sys.path, "parent": os.getpid()})  # type: ignore[arg-type]
            send(process.stdin, self._setup)  # type: ignore[arg-type]
            self._idle.put(process)

    def map(self, function: Function, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Compute ``function(setup, item)`` for every item; yield ``(index, result)`` as they come.

        Raises:
            ChipfitError: What a worker raised, or that a worker died.
        """
        if not items:
            return
        if not self._all:
            self._start()
        with ThreadPoolExecutor(self.count) as threads:
            pending: dict[Future[Any], int] = {
                threads.submit(self._call, function, item): i for i, item in enumerate(items)
            }
            try:
                while pending:
                    done, _ = wait(pending, return_when=FIRST_COMPLETED)
                    for future in sorted(done, key=pending.__getitem__):
                        yield pending.pop(future), future.result()
            except BaseException:
                for future in pending:
                    future.cancel()
                self.close()
                raise

    def _call(self, function: Function, item: Any) -> Any:
        process = self._idle.get()
        try:
            send(process.stdin, (function, item))  # type: ignore[arg-type]
            kind, result = receive(process.stdout)  # type: ignore[arg-type]
            while kind == "progress":
                self._progress(result)
                kind, result = receive(process.stdout)  # type: ignore[arg-type]
        except (EOFError, OSError, ValueError) as error:
            if self._closed:
                raise ChipfitError("the worker processes were stopped") from error
            code = process.wait()
            raise ChipfitError(
                f"a worker process died (exit code {code})",
                "-9 means that the system ran out of memory; use fewer --workers",
            ) from error
        self._idle.put(process)
        if kind == "error":
            raise result
        return result

    def peak_rss_bytes(self) -> int:
        """Return the sum of the workers' peak resident memory so far; 0 where it is not told."""
        total = 0
        for process in self._all:
            with suppress(OSError):
                for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        total += int(line.split()[1]) * 1024
        return total

    def close(self) -> None:
        """Stop the workers at once."""
        self._closed = True
        for process in self._all:
            process.kill()
        for process in self._all:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except OSError:
                        continue  # what could not be flushed to a dead worker is of no use
        self._all = []
        self._idle = queue.SimpleQueue()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
