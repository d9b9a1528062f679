# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a training: tensors and JSON in one safetensors file, replaced atomically."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from chipfit.errors import RunMismatch, StorageError
from chipfit.files import write_atomically

_KEY = "chipfit"


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors: names, dtypes, shapes and values, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able facts so that ``path`` holds the old or the new file, never half.

    Raises:
        StorageError: The file cannot be written, for instance because the disk is full.
    """
    data = serialise(
        {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
        metadata={_KEY: json.dumps(facts, sort_keys=True)},
    )

    def write(aside: Path) -> None:
        aside.write_bytes(data)

    write_atomically(path, write)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return tensors and facts, or ``None`` where there is no such file.

    Raises:
        StorageError: The file is damaged or not a checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[_KEY])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise StorageError(
            f"checkpoint {path} cannot be read: {error}", "remove it to train from the start"
        ) from error


def require_equal(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise ``RunMismatch`` where a checkpoint belongs to another training."""
    differing = [key for key in wanted if found.get(key) != wanted[key]]
    if differing:
        details = "; ".join(f"{k}: {found.get(k)!r}, now {wanted[k]!r}" for k in differing)
        raise RunMismatch(
            f"checkpoint {path} was made by another training ({details})",
            "use the same settings or another folder",
        )
