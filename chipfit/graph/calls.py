# SPDX-License-Identifier: Apache-2.0
"""PyTorch calls as they reach a watcher: their names, and the insides of those in Python."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch

#: In-place and reflected operators that mean the same as the plain one.
_SAME = {
    f"{prefix}{name}": name
    for name in ("add", "sub", "mul", "truediv", "matmul", "pow")
    for prefix in ("i", "r")
} | {"rsub": "rsub", "rtruediv": "reciprocal_div", "rmatmul": "rmatmul", "rpow": "rpow"}


def call_name(func: Any) -> str:
    """Return the name under which handlers know ``func``, without marks of in-place variants."""
    name: str = getattr(func, "__name__", str(func)).partition(".")[0]
    if name == "__get__":
        return "get_" + str(getattr(func, "__self__", None)).split("'")[1]
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_")
        name = _SAME.get(name, name)
        return {"truediv": "div"}.get(name, name)
    return name.rstrip("_") if len(name) > 1 else name


def writes(func: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a call may write into its first argument (or ``out=``)."""
    name: str = getattr(func, "__name__", "").partition(".")[0]
    dunder = name.startswith("__")
    marked = name.endswith("_") and not dunder
    assigning = dunder and name[2:3] == "i" and name.strip("_") in _SAME
    return marked or assigning or name == "__setitem__" or bool(kwargs.get("out") is not None)


def version(tensor: torch.Tensor) -> int:
    """Return how often a tensor was written; tensors made in inference mode do not count."""
    return -1 if tensor.is_inference() else int(tensor._version)


def inside(func: types.FunctionType) -> Callable[..., Any]:
    """Return ``func`` of ``torch.nn.functional`` without its own hand-over to overrides."""
    checks = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    quiet = {name: lambda *_: False for name in checks}
    clone = types.FunctionType(
        func.__code__, {**func.__globals__, **quiet}, func.__name__, func.__defaults__
    )
    clone.__kwdefaults__ = func.__kwdefaults__
    return clone
