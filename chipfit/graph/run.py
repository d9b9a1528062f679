# SPDX-License-Identifier: Apache-2.0
"""Run any module so that each of its calls can be seen, and explain it where it fails."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from chipfit.errors import BadInput

#: What PyTorch says where memory does not suffice.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def unwrapped(net: nn.Module) -> nn.Module:
    """Return the module inside wrappers that only change how it runs.

    Raises:
        BadInput: It is a TorchScript module, whose operators cannot be seen.
    """
    while True:
        inner = getattr(net, "_orig_mod", None)  # torch.compile
        if inner is None and isinstance(net, nn.DataParallel):
            inner = net.module
        if not isinstance(inner, nn.Module):
            break
        net = inner
    if isinstance(net, torch.jit.ScriptModule):
        raise BadInput(
            f"{getattr(net, 'original_name', 'the network')} is a TorchScript module, whose "
            "operators cannot be watched",
            "give the nn.Module that it was made from",
        )
    return net


@contextmanager
def running_plainly() -> Iterator[None]:
    """Run without gradients, compilers and fused shortcuts that hide the operators inside."""
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)


def output_tensors(result: Any) -> list[torch.Tensor]:
    """Return the tensors in what a network returns, in order, data classes included."""
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, Mapping):
        return [x for value in result.values() for x in output_tensors(value)]
    if isinstance(result, Sequence | set) and not isinstance(result, str | bytes):
        return [x for value in result for x in output_tensors(value)]
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        fields = [getattr(result, field.name) for field in dataclasses.fields(result)]
        return [x for value in fields for x in output_tensors(value)]
    return [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]


def explained(net: nn.Module, error: Exception, inputs: Sequence[Any]) -> BadInput:
    """Return the error that tells a user what went wrong in the forward pass of ``net``.

    Args:
        net: The network.
        error: What its forward pass raised.
        inputs: What it was called with.
    """
    tensors = [x for x in inputs if isinstance(x, torch.Tensor)]
    shapes = " and ".join(str(tuple(x.shape)) for x in tensors) or "no tensors"
    text = str(error).strip() or type(error).__name__
    if not isinstance(error, RuntimeError | ValueError | TypeError | IndexError):
        text = f"{type(error).__name__}: {error}"
    name = type(net).__name__
    if isinstance(error, MemoryError) or any(part in text for part in _NO_MEMORY):
        return BadInput(
            f"{name} needs more memory than there is on an input of shape {shapes}: {text}",
            "build it under torch.device('meta') to trace it by shapes alone, or give a smaller "
            "--input",
        )
    if any(x.is_meta for x in tensors):
        return BadInput(
            f"{name} looks at its data, which has no values on the meta device: {text}",
            "build it on the CPU",
        )
    missing = _missing(net, len(tensors)) if isinstance(error, TypeError) else []
    if missing:
        return BadInput(
            f"{name} fails on an input of shape {shapes}: {text}",
            f"its forward pass takes {', '.join(missing)}: give a shape for each, or from Python "
            "a sequence, or a mapping by name",
        )
    whole = ("Long", "Int", "scalar type")
    if "indices" in text and any(part in text for part in whole):
        hint = "it takes integers (tokens): trace it from Python with an example of its own"
    else:
        hint = "give the shape it expects, for instance --input 1,3,224,224"
    return BadInput(f"{name} fails on an input of shape {shapes}: {text}", hint)


def _missing(net: nn.Module, given: int) -> list[str]:
    """Return the required arguments of ``net.forward`` where more than ``given`` are required."""
    try:
        takes = inspect.signature(net.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = [p.name for p in takes if p.default is p.empty and p.kind not in kinds]
    return names if len(names) > given else []
