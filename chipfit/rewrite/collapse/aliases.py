# SPDX-License-Identifier: Apache-2.0
"""Which nodes write into a tensor that others may still read."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from chipfit.rewrite.collapse.lift import Lifted

_VIEWS = {
    torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze, torch.unsqueeze,
    torch.chunk, torch.split, torch.unbind, torch.detach, torch.movedim, torch.narrow,
    operator.getitem, getattr, torch.swapaxes, torch.unflatten,
    "flatten", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "chunk", "split", "view",
    "unbind", "detach", "movedim", "narrow", "swapaxes", "unflatten", "contiguous", "expand",
    "view_as", "reshape_as", "expand_as", "to", "float", "type_as", "T", "t",
}  # fmt: skip
_VIEWING = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)
_WRITES = {operator.setitem} | {
    getattr(operator, name) for name in
    ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor")
}  # fmt: skip


def _aliases(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether the result of ``node`` may share memory with its input."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        known = isinstance(module, _VIEWING)
        return known or not type(module).__module__.startswith("torch.nn")
    return node.target in _VIEWS or "drop" in getattr(node.target, "__name__", "")


def _writes(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if node.op == "call_module":
        module = modules[str(node.target)]
        return bool(getattr(module, "inplace", False)) or (
            not type(module).__module__.startswith("torch.nn")
        )
    if node.kwargs.get("inplace") or node.target in _WRITES:
        return True
    target: Any = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    if any(value is True for value in node.args[1:]) and hasattr(torch.nn.functional, name):
        return True  # an in-place flag may stand without its name
    return name.endswith("_") and not name.endswith("__")


def _touching(
    node: fx.Node, end: fx.Node, modules: Mapping[str, nn.Module]
) -> tuple[set[fx.Node], set[fx.Node]]:
    """Return who reads ``node`` or a view of it, and who writes there, not looking past ``end``."""
    readers: set[fx.Node] = set()
    writers: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        read = waiting.pop()
        for user in read.users:
            if user in readers:
                continue
            readers.add(user)
            own = user.op == "call_module" or not user.args or user.args[0] is read
            writing = own and _writes(user, modules)
            if writing:
                writers.add(user)
            if user is not end and (writing or (own and _aliases(user, modules))):
                waiting.append(user)
    return readers, writers


def safe(
    source: fx.Node, region: Sequence[fx.Node], lifts: Mapping[fx.Node, Lifted],
    modules: Mapping[str, nn.Module], keeps_source: bool,
) -> bool:  # fmt: skip
    """Whether nobody notices when ``region`` no longer runs and ``source`` is read at its end.

    Args:
        source: What the region computes from.
        region: The nodes that go, in order.
        lifts: What they do.
        modules: By dotted name.
        keeps_source: The source itself takes the place of the last node.
    """
    inside, last = set(region), region[-1]
    for node in (source, *region[:-1]):
        readers, writers = _touching(node, last, modules)
        if source.op == "placeholder" and node is source and writers & inside:
            return False  # the caller's own tensor was written
        if any(writer < last for writer in writers - inside):
            return False
        for writer in writers & inside:
            if any(reader not in inside and writer < reader for reader in readers):
                return False
    if keeps_source and any(lifts[node].kind != "identity" for node in region):
        # What was a tensor of its own becomes the source: nobody may write into either.
        nobody = fx.Graph().output(None)
        return not (_touching(last, nobody, modules)[1] or _touching(source, nobody, modules)[1])
    return True
