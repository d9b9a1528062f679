# SPDX-License-Identifier: Apache-2.0
"""Differentiation across processes, and batch norms that see the whole batch.

A number is either the same in all processes (a weight, the loss of the batch) or each has its own
(what it computes of its share). ``Spread`` leads from the first kind to the second and adds the
gradients up on the way back; ``Total`` leads back by adding the numbers up, and its gradient is the
same in all processes. Each is the other's derivative, so that derivatives of any order are those of
one process. Shoeybi et al., "Megatron-LM", 2019, arXiv 1909.08053, section 3, calls them f and g.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from chipfit.ranks import Ranks, current


class Spread(torch.autograd.Function):
    """Tensors as they are; backwards, the sums of their gradients over processes, at once."""

    @staticmethod
    def forward(ctx: Any, ranks: Ranks, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return one tensor for each."""
        ctx.ranks = ranks
        ctx.set_materialize_grads(False)
        return tuple(t.view_as(t) for t in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return a gradient for every one that there is."""
        return (None, *_where_given(Total, ctx.ranks, grads))


class Total(torch.autograd.Function):
    """The sums of tensors over processes; backwards, the gradients as they are."""

    @staticmethod
    def forward(ctx: Any, ranks: Ranks, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return one tensor for each."""
        ctx.ranks = ranks
        ctx.set_materialize_grads(False)
        return tuple(ranks.total(tensors))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return a gradient for every one that there is."""
        return (None, *_where_given(Spread, ctx.ranks, grads))


def _where_given(
    function: Any, ranks: Ranks, grads: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Apply a function to the gradients that there are: the same ones in all processes."""
    given = [g for g in grads if g is not None]
    found = iter(function.apply(ranks, *given)) if given else iter(())
    return [None if g is None else next(found) for g in grads]


def whole_batch_norm(
    ranks: Ranks,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return ``functional.batch_norm(..., training=True)`` of the batch of all processes.

    Args:
        ranks: Each holds a share of the batch.
        x: This share, ``(N, C, ...)``; shares may differ in size.
        running_mean: ``(C,)``, updated in place.
        running_var: ``(C,)``, updated in place by the unbiased variance of the whole batch.
        weight: ``(C,)``.
        bias: ``(C,)``.
        momentum: Of the running statistics.
        eps: Added to the variance.
    """
    shape = (1, -1, *[1] * (x.ndim - 2))
    dims = [0, *range(2, x.ndim)]
    own_mean = x.mean(dims)
    centred = x - own_mean.reshape(shape)
    # One message: count, sums and sums of squares, which need double precision.
    own_count = x.new_tensor([x.numel() / x.shape[1]], dtype=torch.float64)
    sums = own_mean.double() * own_count
    squares = centred.square().sum(dims).double() + own_mean.double() * sums
    (whole,) = Spread.apply(ranks, *Total.apply(ranks, torch.cat([sums, squares, own_count])))
    count = whole[-1].detach()
    mean, square = (whole[:-1] / count).chunk(2)
    variance = square - mean.square()
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            unbiased = variance * (count / (count - 1))
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    scale = torch.rsqrt(variance + eps).to(x.dtype)
    scale = scale if weight is None else scale * weight
    shift = (own_mean - mean.to(x.dtype)) * scale
    shift = shift if bias is None else shift + bias
    return torch.addcmul(shift.reshape(shape), centred, scale.reshape(shape))


def whole_batches() -> AbstractContextManager[Any]:
    """Let batch norms take their statistics over all processes that share a batch meanwhile.

    PyTorch leaves such contexts for the time of a backward pass: what computes there enters it
    again.
    """
    ranks = current()
    return _WholeBatchNorms(ranks) if ranks is not None and ranks.sharing else nullcontext()


class _WholeBatchNorms(TorchFunctionMode):
    """Takes the statistics of batch norms over all processes meanwhile.

    It is ``functional.batch_norm`` that is replaced, in training mode: so every kind of batch norm
    is synchronised, and code that normalises without a module. ``nn.SyncBatchNorm`` is for GPUs
    only, and for modules.

    Args:
        ranks: The processes.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self._ranks = ranks

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call a function of PyTorch, or what takes its place."""
        kwargs = dict(kwargs or {})
        if func is functional.batch_norm and kwargs.get("training") and self._ranks.in_step:
            del kwargs["training"]
            return whole_batch_norm(self._ranks, *args, **kwargs)
        return func(*args, **kwargs)
