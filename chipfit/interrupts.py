# SPDX-License-Identifier: Apache-2.0
"""Interrupts that are not lost: a library that catches everything cannot swallow one.

Code of others holds bare ``except`` clauses, around optional imports above all. A KeyboardInterrupt
that arrives there vanishes, and the run goes on. So it is noted as well, and raised again at the
next step.
"""

from __future__ import annotations

import signal
from typing import Any, NoReturn

_asked = False


def watch() -> None:
    """Turn SIGINT and SIGTERM into KeyboardInterrupt, and note that they came."""
    global _asked
    _asked = False
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def _interrupt(*_: Any) -> NoReturn:
    global _asked
    _asked = True
    raise KeyboardInterrupt


def raise_if_asked() -> None:
    """Raise a KeyboardInterrupt that came before and was swallowed; call this between steps.

    Raises:
        KeyboardInterrupt: A signal came since :func:`watch`.
    """
    if _asked:
        raise KeyboardInterrupt
