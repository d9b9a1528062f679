# SPDX-License-Identifier: Apache-2.0
"""The operators that PyTorch executes, by its own profiler."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from chipfit.graph.workload import Workload
from chipfit.targets.layer import RuntimeNode
from chipfit.targets.timing import Run

#: Operators that only copy; they convert where a change of layout or precision asked for them.
_COPIES = frozenset({"aten::contiguous", "aten::_to_copy", "aten::clone"})


def executed(
    run: Run, module: nn.Module | None, workload: Workload, device: str, precision: str
) -> list[RuntimeNode]:
    """Return what PyTorch executes, in order, with shares of the operators' time.

    On a GPU the time is that of its kernels. The time of the Python code between operators is in no
    share: it belongs to no operator, and the profiler would exaggerate it.

    Args:
        run: Runs the network once.
        module: What it runs, a submodule ``node_i`` per node; ``None`` where it was compiled, and
            nothing tells which operator belongs to which layer.
        workload: The network's nodes.
        device: ``"cpu"`` or ``"cuda"``.
        precision: What all of it computes in.
    """
    from torch.profiler import ProfilerActivity, profile

    for _ in range(3):
        start = time.perf_counter()
        run()
        _finish(device)
        once = time.perf_counter() - start
    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with _scopes(module), profile(activities=activities) as profiler:
        for _ in range(min(20, max(4, round(0.5 / once)))):
            run()
        _finish(device)
    times: dict[tuple[str, str], dict[str, float]] = {}
    copies: dict[tuple[str, str], bool] = {}
    for event in profiler.events():
        spent = _own_time(event, device)
        if spent <= 0.0 or event.name.startswith("node_"):
            continue
        scope, outermost, copy = _place(event)
        if module is not None and not scope:
            continue
        key = (scope, outermost if module is not None else _plain(event.name))
        kinds = times.setdefault(key, {})
        kinds[_plain(event.name)] = kinds.get(_plain(event.name), 0.0) + spent
        copies[key] = copies.get(key, True) and copy
    whole = sum(sum(kinds.values()) for kinds in times.values()) or 1.0
    found = []
    for (scope, outermost), kinds in times.items():
        layer = workload.nodes[int(scope.removeprefix("node_"))].name if scope else ""
        kind = max(kinds, key=lambda name: kinds[name]).removeprefix("aten::")
        name = f"{layer}/{outermost.removeprefix('aten::')}" if layer else outermost
        share = sum(kinds.values()) / whole
        found.append(RuntimeNode(name, kind, share, layer, precision, copies[scope, outermost]))
    return found


@contextmanager
def _scopes(module: nn.Module | None) -> Iterator[None]:
    """Mark the time between start and end of every node's submodule with its name."""
    handles = []
    for name, child in module.named_children() if module is not None else ():
        mark = torch.profiler.record_function(name)
        handles += [
            child.register_forward_pre_hook(lambda *_, mark=mark: _enter(mark)),
            child.register_forward_hook(lambda *_, mark=mark: _leave(mark)),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _enter(mark: Any) -> None:
    mark.__enter__()


def _leave(mark: Any) -> None:
    mark.__exit__(None, None, None)


def _place(event: Any) -> tuple[str, str, bool]:
    """Return the node's scope, the outermost operator inside it, and whether this is a copy."""
    outermost, copy = event.name, event.name in _COPIES
    parent = event.cpu_parent
    while parent is not None and not parent.name.startswith("node_"):
        outermost = parent.name
        copy = copy or parent.name in _COPIES
        parent = parent.cpu_parent
    return (parent.name if parent is not None else ""), outermost, copy


def _plain(name: str) -> str:
    """Return the name of an operator; the compiler's own marks carry hashes and counters."""
    if name.startswith("## Call CompiledFxGraph"):
        return "generated code"
    own = ("Torch-Compiled Region", "TorchDynamo", "Pregraph", "AOTDispatcher")
    return "entry of compiled code" if name.startswith(own) else name


def _own_time(event: Any, device: str) -> float:
    return float(event.self_device_time_total if device == "cuda" else event.self_cpu_time_total)


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
