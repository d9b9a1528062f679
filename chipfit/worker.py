# SPDX-License-Identifier: Apache-2.0
"""The program that a worker process runs; started by :mod:`chipfit.workers`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from chipfit.workers import receive, serve


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main() -> None:
    """Serve requests until the parent goes away."""
    # The pipe keeps the real standard output; whatever a library prints goes to standard error.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start = receive(requests)
    threading.Thread(target=_die_with, args=(start["parent"],), daemon=True).start()
    sys.path[:] = start["path"]
    import torch

    torch.set_num_threads(1)
    try:
        serve(requests, replies, receive(requests))
    except (EOFError, BrokenPipeError):
        return


if __name__ == "__main__":
    main()
