# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent: written aside, flushed to disk, then renamed."""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chipfit.errors import StorageError

if TYPE_CHECKING:
    import torch


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place.

    Raises:
        StorageError: The disk is full or the folder cannot be written; ``path`` is untouched.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(aside)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise storage_error(path, error) from error


def storage_error(path: Path, error: OSError) -> StorageError:
    """Return the error to raise for a failed write of ``path``."""
    hint = "check the folder and its permissions"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space and run the same command: it continues where it stopped"
    return StorageError(f"cannot write {path}: {error.strerror or error}", hint)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data``, atomically; errors as :func:`write_atomically`."""

    def write(aside: Path) -> None:
        aside.write_bytes(data)

    write_atomically(path, write)


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` as indented JSON, atomically."""
    text = json.dumps(data, indent=1, sort_keys=False) + "\n"
    write_bytes(path, text.encode())


def write_state(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Write tensors as safetensors, atomically; tensors that share memory are cloned."""
    from safetensors.torch import save_file

    whole = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}

    def save(aside: Path) -> None:
        try:
            save_file(whole, aside)
        except Exception as error:  # the library wraps the reason of the system in its own type
            if "No space left" in str(error) or "os error 28" in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise

    write_atomically(path, save)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read tensors from a safetensors file.

    Raises:
        StorageError: The file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"cannot read {path}: {error}", "is it a safetensors file?") from error
    return state
