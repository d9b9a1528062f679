# SPDX-License-Identifier: Apache-2.0
"""The folder in which chipfit keeps what it fetched or paid for once."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chipfit.errors import StorageError


def cache_folder() -> Path:
    """Return ``$CHIPFIT_CACHE``, or the user's cache folder; it need not exist yet."""
    chosen = os.environ.get("CHIPFIT_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "chipfit"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of one folder of the cache, which need not exist; others wait here.

    Raises:
        StorageError: The cache cannot be written.
    """
    import fcntl

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        handle = (folder.parent / f".{folder.name}.lock").open("a")
    except OSError as error:
        raise storage_trouble(error, folder.parent) from error
    with handle:
        # The lock goes with the process, so a killed one leaves nothing to clean up.
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def storage_trouble(error: OSError, path: Path) -> StorageError:
    """Return the error to raise where the cache at ``path`` cannot be written."""
    if error.errno == errno.ENOSPC:
        return StorageError(
            f"no space left for the cache {path}", "free some space or set CHIPFIT_CACHE"
        )
    return StorageError(
        f"cache {path} cannot be written: {error.strerror or error}",
        "set CHIPFIT_CACHE to a folder that can be written",
    )
