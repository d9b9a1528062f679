# SPDX-License-Identifier: Apache-2.0
"""``MixedOperation``: a place of a supernet where several candidate operations stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from chipfit.blocks.skip import is_absent
from chipfit.errors import ChipfitError
from chipfit.supernet.across_ranks import whole_batches
from chipfit.supernet.mixture import Mixture


class MixedOperation(nn.Module):
    """Candidates of which only those of the current mixture run and hold activations.

    Args:
        candidates: Each maps ``(N, C_in, H, W)`` to the same output shape.
    """

    mixture: Mixture | None

    def __init__(self, candidates: Sequence[nn.Module]) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(candidates)
        self.mixture = None

    @property
    def absent(self) -> bool:
        """Whether the choice is fixed to ``none``: cells then leave the edge out."""
        mixture = self.mixture
        if mixture is None or mixture.weights is not None:
            return False
        return is_absent(self.candidates[mixture.active[0]])

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to the mixture of the active candidates' outputs.

        Raises:
            ChipfitError: No mixture was drawn.
        """
        mixture = self.mixture
        if mixture is None:
            raise ChipfitError("a supernet runs after draw() or fix() only")
        if mixture.weights is None:
            return self.candidates[mixture.active[0]](x)
        if mixture.compared:
            return self._gated(x, mixture)
        total: Tensor | None = None
        for i, weight in zip(mixture.active, mixture.weights, strict=True):
            term = weight.to(x.dtype) * self.candidates[i](x)
            total = term if total is None else total + term
        assert total is not None  # a mixture has an active candidate
        return total

    def _gated(self, x: Tensor, mixture: Mixture) -> Tensor:
        active = mixture.active[0]
        y = self.candidates[active](x)
        assert mixture.weights is not None  # compared gates have weights
        if not (torch.is_grad_enabled() and mixture.weights.requires_grad):
            return y
        others = [None if i == active else self._untracked(i) for i in mixture.compared]
        return _GatedPath.apply(mixture.weights, y, x.detach(), others)

    def _untracked(self, index: int) -> Callable[[Tensor], Tensor]:
        candidate = self.candidates[index]

        def run(x: Tensor) -> Tensor:
            with torch.no_grad(), untracked(candidate), whole_batches():
                return candidate(x)

        return run

    def keep(self, indices: Sequence[int]) -> None:
        """Delete all candidates but these, with their weights."""
        self.candidates = nn.ModuleList(self.candidates[i] for i in indices)
        self.mixture = None


class _GatedPath(torch.autograd.Function):
    """The active path's output; backwards, every compared path runs once without a graph."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, y: Tensor, x: Tensor, others: Sequence[Any]) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.others, ctx.like = others, weights
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        (grad,) = grads
        found = [(grad * (y if run is None else run(x))).sum() for run in ctx.others]
        return torch.stack(found).to(ctx.like.dtype), grad, None, None


@contextmanager
def untracked(module: nn.Module) -> Iterator[None]:
    """Keep batch norms of ``module`` from updating their running statistics meanwhile."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not module.training:
        norms = []  # they use their statistics and do not change them
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
