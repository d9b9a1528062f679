# SPDX-License-Identifier: Apache-2.0
"""Every error that chipfit raises on purpose.

A message says what went wrong and where; ``hint`` is the nearest fix. The command line prints
both without a traceback and exits with ``exit_code``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class ChipfitError(Exception):
    """Base of all errors raised by chipfit.

    Args:
        message: What went wrong, and where.
        hint: The nearest fix; empty where there is none.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses have arguments of their own; worker processes send errors home by their state.
        return _restore, (type(self), dict(self.__dict__))


def _restore(kind: type[ChipfitError], state: dict[str, Any]) -> ChipfitError:
    error = kind.__new__(kind)
    Exception.__init__(error, state["message"])
    error.__dict__.update(state)
    return error


class UnknownName(ChipfitError):
    """A name that no registry knows; the hint lists near matches."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(names)}"
        super().__init__(f"unknown {what} {name!r}", hint)
        self.near = near


class BadInput(ChipfitError):
    """A setting, a shape or a file given by the user cannot be used."""


class UnsupportedOp(ChipfitError):
    """A network holds an operator that the target, or an exporter, cannot run."""


class InfeasibleBudget(ChipfitError):
    """No reachable network meets the budget; the message names the cheapest reachable one."""

    exit_code = 3


class ParityError(ChipfitError):
    """An exported or rewritten network does not compute what the original computes."""

    exit_code = 4


class MissingBackend(ChipfitError):
    """An optional dependency or a device runtime is not installed."""


class StaleCostTable(ChipfitError):
    """A cost table was written by another target, version or schema."""


class BadTask(ChipfitError):
    """A task, its data or its metric cannot be used."""


class DataUnavailable(BadTask):
    """A data set is neither cached nor reachable."""


class TrainingDiverged(ChipfitError):
    """The loss became NaN or infinite."""


class RunMismatch(ChipfitError):
    """A run directory was started with other settings."""


class LostProcess(ChipfitError):
    """Another process that shared the work is gone."""


class StorageError(ChipfitError):
    """The run directory cannot be read or written, for instance because the disk is full."""


class Interrupted(ChipfitError):
    """The user stopped the run; the same command continues it."""

    exit_code = 130
