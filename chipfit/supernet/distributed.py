# SPDX-License-Identifier: Apache-2.0
"""A search on a supernet by several processes, which gives the result of one up to rounding.

All processes run the loop in step with the same mixtures. Of every batch each computes an equal
share; loss, gradients and batch statistics are those of the whole batch in all of them, so that
rules need not know of this: :meth:`SearchState.loss` is the loss of the batch, however many compute
it. What the budget adds is the same everywhere and counts once. Only the first process reads and
writes checkpoints and makes records; the others get what it has, a continued search included.

Processes compute on the CPU and talk by gloo, on one machine or several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.ranks import Ranks, current
from chipfit.supernet.across_ranks import Spread, Total, whole_batches
from chipfit.supernet.mixed_operation import MixedOperation
from chipfit.supernet.search_rule import SearchRule
from chipfit.supernet.search_state import SearchState
from chipfit.tasks.base import Batch, Task
from chipfit.train.randomness import private_global_stream, seed_global_stream


@contextmanager
def in_step(state: SearchState, rule: SearchRule, halves: tuple[Task, Task]) -> Iterator[None]:
    """Have the other processes, if there are any, run the same search meanwhile.

    They get the state as it is now. What they cannot get, functions that look up costs, the first
    process computes and tells them.

    Raises:
        ChipfitError: Another process cannot join.
    """
    ranks = current()
    if ranks is None or ranks.rank > 0:
        yield
        return
    expected = state.pressure.expected_by
    functions = {name: getattr(rule, name) for name in rule.told}
    state.pressure.expected_by = {k: _ToldExpectation(f) for k, f in expected.items()}
    for name, function in functions.items():
        setattr(rule, name, _Told(function))
    try:
        with ranks.together(_follow, state, rule, halves):
            yield
    finally:
        state.pressure.expected_by = expected
        for name, function in functions.items():
            setattr(rule, name, function)


def _follow(state: SearchState, rule: SearchRule, halves: tuple[Task, Task]) -> None:
    from chipfit.supernet.loop import search_supernet

    search_supernet(state, rule, halves)


def shared(state: SearchState) -> AbstractContextManager[None]:
    """Let the processes share the batches of the losses that are computed meanwhile."""
    ranks = current()
    return nullcontext() if ranks is None else _shared(state, ranks)


@contextmanager
def _shared(state: SearchState, ranks: Ranks) -> Iterator[None]:
    state.share_loss = lambda batch: shared_loss(state, batch, ranks)
    ranks.sharing = True
    try:
        with whole_batches():
            yield
    finally:
        state.share_loss, ranks.sharing = None, False


def alone() -> AbstractContextManager[None]:
    """Let this process do meanwhile what the others do not."""
    ranks = current()
    return nullcontext() if ranks is None else ranks.alone()


class _Objective(nn.Module):
    """Supernet and loss as one module."""

    def __init__(self, state: SearchState) -> None:
        super().__init__()
        self.supernet, self._task = state.supernet, state.task

    def forward(self, batch: Batch) -> Tensor:
        return self._task.criterion(self._task.forward(self.supernet, batch), batch)


def shared_loss(state: SearchState, batch: Batch, ranks: Ranks) -> Tensor:
    """Return the loss of a batch of which every process computes a share.

    The task's criterion has to be a mean over images, and shares weigh by their images. Derivatives
    of any order, in weights and in whatever the mixtures depend on, are the same in all processes.
    Gradients travel in one message for all weights and one for all mixtures.

    Args:
        state: Of the search.
        batch: The whole one, the same in all processes.
        ranks: The processes.

    Raises:
        BadInput: There are fewer images than processes.
    """
    images = len(batch.inputs)
    if images < ranks.size:
        raise BadInput(
            f"a batch of {images} images for {ranks.size} processes",
            "raise batch_size, or start fewer processes",
        )
    own = Batch(*(torch.tensor_split(t, ranks.size)[ranks.rank] for t in batch))
    trained = [(n, p) for n, p in state.supernet.named_parameters() if p.requires_grad]
    values = Spread.apply(ranks, *(p for _, p in trained)) if trained else ()
    weights = {f"supernet.{n}": v for (n, _), v in zip(trained, values, strict=True)}
    # Dropout differs from share to share, but nothing after it may differ between processes.
    noise = int(torch.randint(2**62, ()))
    with private_global_stream(), _spread_mixtures(state.supernet, ranks):
        seed_global_stream(noise, ranks.rank)
        loss = torch.func.functional_call(_Objective(state), weights, (own,))
    return Total.apply(ranks, loss * (len(own.inputs) / images))[0]


@contextmanager
def _spread_mixtures(supernet: nn.Module, ranks: Ranks) -> Iterator[None]:
    """Let gradients of the mixtures' weights be summed over processes."""
    places = [m for m in supernet.modules() if isinstance(m, MixedOperation)]
    before = [place.mixture for place in places]
    found = [m.weights for m in before if m is not None and m.weights is not None]
    distinct = {id(w): w for w in found if w.requires_grad}
    values = Spread.apply(ranks, *distinct.values()) if distinct else ()
    spread = dict(zip(distinct, values, strict=True))
    for place, mixture in zip(places, before, strict=True):
        if mixture is not None and id(mixture.weights) in spread:
            place.mixture = replace(mixture, weights=spread[id(mixture.weights)])
    try:
        yield
    finally:
        for place, mixture in zip(places, before, strict=True):
            place.mixture = mixture


class _Told:
    """A function that the first process computes and tells the others.

    Args:
        function: Stays with the first process.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function: Callable[..., Any] | None = function

    def __getstate__(self) -> dict[str, Any]:
        return {"_function": None}

    def __call__(self, *arguments: Any) -> Any:
        ranks, function = current(), self._function
        if function is not None and (ranks is None or not ranks.in_step):
            return function(*arguments)
        assert ranks is not None  # only other processes lack the function
        return ranks.told(None if function is None else lambda: function(*arguments))


class _ToldExpectation(_Told):
    """An expected cost that the first process computes, with its gradient.

    Args:
        function: From the probabilities of every choice's options to a scalar.
    """

    def __init__(self, function: Callable[[Sequence[Tensor]], Tensor]) -> None:
        def with_slopes(points: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
            with torch.enable_grad():
                leaves = [p.detach().requires_grad_() for p in points]
                value = function(leaves)
                found: Sequence[Tensor | None] = [None] * len(leaves)
                if value.requires_grad:
                    found = torch.autograd.grad(value, leaves, allow_unused=True)
            zeros = map(torch.zeros_like, leaves)
            slopes = [z if g is None else g for g, z in zip(found, zeros, strict=True)]
            return value.detach(), slopes

        super().__init__(with_slopes)

    def __call__(self, probabilities: Sequence[Tensor]) -> Tensor:
        value, slopes = super().__call__([p.detach() for p in probabilities])
        pairs = zip(probabilities, slopes, strict=True)
        return value + torch.stack([((p - p.detach()) * s).sum() for p, s in pairs]).sum()
