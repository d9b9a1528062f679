# SPDX-License-Identifier: Apache-2.0
"""The registry of handlers that understand PyTorch calls, and what they record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from chipfit.graph.op import Shape

#: A handler records the operators behind one call: ``handler(recorder, result, *args, **kwargs)``.
Handler = Callable[..., None]
HANDLERS: dict[str, Handler] = {}


def lowers(*names: str) -> Callable[[Handler], Handler]:
    """Return a decorator that makes a function the handler of the calls named ``names``."""

    def add(handler: Handler) -> Handler:
        for name in names:
            HANDLERS[name] = handler
        return handler

    return add


#: Calls whose handlers also take integers; they move values, or look them up.
ANY_DTYPE = {
    "embedding", "view", "reshape", "flatten", "unsqueeze", "squeeze", "getitem", "contiguous",
    "clone", "detach", "permute", "transpose", "cat", "to", "float", "type_as", "expand",
    "new_zeros", "new_ones", "new_full", "new_empty", "new_tensor", "zeros_like", "ones_like",
    "full_like", "empty_like", "max", "min",
}  # fmt: skip


class Declined(Exception):
    """A handler meets a variant of its call that it cannot express."""


@dataclass
class RawNode:
    """An operator under construction; fusion edits it before it is frozen into a ``Node``."""

    kind: str
    inputs: list[str]
    output: str
    shape: Shape
    attrs: dict[str, Any]
    params: dict[str, torch.Tensor] = field(default_factory=dict)
    place: str = ""
    module: str = ""
    activation: str = "none"
    absorbed: list[str] = field(default_factory=list)
    sources: frozenset[str] = frozenset()


def host(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in main memory; double precision stays, all else becomes float32.

    A tensor of the meta device has no values, and stays there.
    """
    tensor = tensor.detach()
    tensor = tensor if tensor.is_meta else tensor.cpu()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    wide = tensor.dtype == torch.float64 or tensor.is_complex()
    return tensor if wide else tensor.float()


def refuse_numbers(active: list[torch.Tensor], outputs: list[torch.Tensor]) -> None:
    """Decline complex, integer and truth values: operators are defined on real numbers.

    Raises:
        Declined: One of the tensors holds such values.
    """
    for tensor in (*active, *outputs):
        if not tensor.dtype.is_floating_point:
            raise Declined(f"values of type {str(tensor.dtype).removeprefix('torch.')}")
