# SPDX-License-Identifier: Apache-2.0
"""Silence channels in place: what the narrower network must compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from chipfit.graph.coupling_sides import BATCH_NORMS, CONVOLUTIONS, NORMS, TRANSPOSED

#: Statistics over an axis, with the place of the axes among their arguments.
_STATISTICS = ("mean", "var", "std", "var_mean")


@torch.no_grad()
def silence_(net: nn.Module, kept: Mapping[tuple[str, str], Sequence[int]]) -> nn.Module:
    """Zero whatever makes or reads a removed channel; normalise over the others alone.

    Args:
        net: Changed in place, and returned.
        kept: Indices that stay, by side; attributes are left alone.
    """
    for (name, side), stay in kept.items():
        if side.startswith("param:"):
            owner, _, leaf = name.rpartition(".")
            module, axis = net.get_submodule(owner), int(side[6:])
            _zero(getattr(module, leaf), axis, stay)
            if not isinstance(module, NORMS):
                _normalise_over(module, stay, getattr(module, leaf).shape[axis])
        elif not side.startswith(("attr:", "off:")):
            _silence_module(net.get_submodule(name), side, stay)
    return net


def _zero(tensor: torch.Tensor | None, axis: int, stay: Sequence[int]) -> None:
    if tensor is not None:
        gone = sorted(set(range(tensor.shape[axis])) - set(stay))
        tensor.index_fill_(axis, torch.tensor(gone, dtype=torch.long, device=tensor.device), 0)


def _silence_module(module: Any, side: str, stay: Sequence[int]) -> None:
    if isinstance(module, nn.PReLU):
        return
    if isinstance(module, CONVOLUTIONS) and side == "in" and module.groups > 1:
        each = module.in_channels // module.groups
        rows = module.out_channels // module.groups
        for i in set(range(module.in_channels)) - set(stay):
            module.weight[i // each * rows : (i // each + 1) * rows, i % each] = 0
    elif isinstance(module, TRANSPOSED):
        _zero(module.weight, int(side == "out"), stay)
    elif side == "in":
        _zero(module.weight, 1, stay)
    else:
        _zero(module.weight, -1 if isinstance(module, nn.LayerNorm) else 0, stay)
    if side == "out":
        _zero(module.bias, -1, stay)
        if isinstance(module, nn.LayerNorm):
            _normalise_over(module, stay, int(module.normalized_shape[-1]))
        elif isinstance(module, nn.GroupNorm):
            _normalise_over(module, stay, module.num_channels)
        elif isinstance(module, BATCH_NORMS):
            pass  # every channel has statistics of its own


def _normalise_over(module: nn.Module, stay: Sequence[int], size: int) -> None:
    kind = type(module)
    module._kept_channels = torch.tensor(list(stay))
    module._all_channels = size  # type: ignore[assignment]
    if not issubclass(kind, _OverKept):
        module.__class__ = type(kind.__name__, (_OverKept, kind), {"__module__": __name__})


class _OverKept(nn.Module):
    """Mixed into a module whose statistics go over the channels that stay.

    Those of layers inside with parameters of their own are theirs: another axis of theirs may be as
    long.
    """

    _kept_channels: torch.Tensor
    _all_channels: int

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with _Kept(self._kept_channels, self._all_channels) as mode, ExitStack() as hooks:
            for child in self.children():
                if next(child.parameters(), None) is not None:
                    hooks.enter_context(child.register_forward_pre_hook(mode.pause))
                    after = child.register_forward_hook(mode.go_on, always_call=True)
                    hooks.enter_context(after)
            return super().forward(*args, **kwargs)


class _Kept(TorchDispatchMode):
    """Compute statistics over some entries of every axis of one length; others become 0."""

    def __init__(self, kept: torch.Tensor, size: int) -> None:
        super().__init__()
        self.kept, self.size, self.paused = kept, size, 0

    def pause(self, *_: Any) -> None:
        """Leave statistics alone; calls are counted."""
        self.paused += 1

    def go_on(self, *_: Any) -> None:
        """Undo one :meth:`pause`."""
        self.paused -= 1

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name == "native_layer_norm" and list(args[1]) == [self.size]:
            x, _, weight, bias, eps = args
            out, *rest = func(self._of(x, -1), [len(self.kept)], self._of(weight, -1),
                              self._of(bias, -1), eps)  # fmt: skip
            return (self._back(out, x, -1), *rest)
        if name == "native_group_norm" and args[4] == self.size:
            x, weight, bias, n, _, area, groups, eps = args
            out, *rest = func(self._of(x, 1), self._of(weight, 0), self._of(bias, 0), n,
                              len(self.kept), area, groups, eps)  # fmt: skip
            return (self._back(out, x, 1), *rest)
        if name in _STATISTICS and len(args) > 1 and isinstance(args[1], list | tuple):
            x = args[0]
            for dim in args[1]:
                if x.shape[dim] == self.size:
                    x = self._of(x, dim)
            return func(x, *args[1:], **kwargs)
        return func(*args, **kwargs)

    def _of(self, x: torch.Tensor | None, dim: int) -> torch.Tensor | None:
        return None if x is None else x.index_select(dim, self.kept.to(x.device))

    def _back(self, out: torch.Tensor, like: torch.Tensor, dim: int) -> torch.Tensor:
        return torch.zeros_like(like).index_copy(dim, self.kept.to(out.device), out)
