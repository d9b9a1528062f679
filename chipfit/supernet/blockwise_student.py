# SPDX-License-Identifier: Apache-2.0
"""``Student``: one block that learns to do at its place what the teacher's does."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from chipfit.space.blocks import BlockChoice
from chipfit.supernet.supernet import drawn
from chipfit.train.optimizer import optimizer_tensors, restore_optimizer
from chipfit.train.randomness import private_global_stream, seed_global_stream, stream_seed

#: Smallest variance that errors are divided by.
_LEAST_VARIANCE = 1e-12


@dataclass(frozen=True)
class Replacement:
    """An operation of a choice, at all of its places.

    Args:
        choice: Of a block space.
        operation: Name of one of its operations.
    """

    choice: BlockChoice
    operation: str

    def module(self, p: int, net: nn.Module, seed: int) -> nn.Module:
        """Return what stands at place ``p`` at the start: new weights, or a copy of what is kept.

        Args:
            p: Number of the place.
            net: The teacher.
            seed: Of new weights; each place and operation draws its own.
        """
        old = net.get_submodule(self.choice.places[p])
        swaps = self.choice[self.operation].swaps
        if not swaps:
            return copy.deepcopy(old)
        with private_global_stream():
            return drawn(swaps[p], stream_seed(seed, self.choice.places[p], self.operation), old)


class Student:
    """A block under training, with an optimiser of its own.

    Its loss is the mean squared error of its output, divided by the variance of the teacher's
    output in the batch: 1 is what the best constant would reach, whatever the scale of a layer.

    Args:
        replacement: What it is.
        p: Number of its place.
        net: The teacher.
        seed: Of its weights, and of what it draws while it learns.
        learning_rate: Adam's, at the start.
        weight_decay: Decoupled, of kernels and matrices.
    """

    def __init__(
        self, replacement: Replacement, p: int, net: nn.Module, seed: int, learning_rate: float,
        weight_decay: float,
    ) -> None:  # fmt: skip
        self.place = replacement.choice.places[p]
        self.key = f"{replacement.choice.name}/{replacement.operation}/{p}"
        self.kept = not replacement.choice[replacement.operation].swaps
        self.seed = stream_seed(seed, self.key)
        self.module = replacement.module(p, net, seed)
        #: Last training loss; not finite once the student has diverged and learns no more.
        self.loss = math.nan
        own = [q for q in self.module.parameters() if q.requires_grad] if not self.kept else []
        groups = [
            {"params": [q for q in own if q.ndim > 1], "weight_decay": weight_decay},
            {"params": [q for q in own if q.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate, foreach=False) if own else None

    @property
    def diverged(self) -> bool:
        """Whether a loss was not finite."""
        return math.isinf(self.loss)

    def learn(self, x: Tensor, wanted: Tensor, step: int, rate: float) -> None:
        """Take one step towards ``wanted`` on what entered the block, ``(N, C, H, W)`` each."""
        if self.optimizer is None or self.diverged:
            return
        if step == 0:
            match_scale(self.module, x, wanted)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        seed_global_stream(self.seed, step)
        self.module.train()
        with torch.enable_grad():
            loss = relative_error(self.module(x), wanted)
            value = loss.item()
            if not math.isfinite(value):
                self.loss = math.inf
                return
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)  # gradients are not kept between steps
        self.loss = value

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that its next step depends on."""
        found = {f"model:{n}": v for n, v in self.module.state_dict().items()}
        if self.optimizer is not None:
            slots = optimizer_tensors(self.module, self.optimizer)
            found |= {f"optimizer:{n}": v for n, v in slots.items()}
        return found

    def restore(self, tensors: Mapping[str, Tensor], loss: float) -> None:
        """Put back what :meth:`tensors` returned."""

        def group(name: str) -> dict[str, Tensor]:
            return {k.partition(":")[2]: v for k, v in tensors.items() if k.startswith(f"{name}:")}

        self.module.load_state_dict(group("model"))
        if self.optimizer is not None:
            restore_optimizer(self.module, self.optimizer, group("optimizer"))
        self.loss = loss

    def norms(self) -> list[_BatchNorm]:
        """Return its batch norms, none where it is the teacher's own block."""
        if self.kept:
            return []
        return [
            m for m in self.module.modules()
            if isinstance(m, _BatchNorm) and m.track_running_stats
        ]  # fmt: skip


def relative_error(output: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared error over the variance of ``wanted``, a scalar; lower is better."""
    scale = wanted.var(unbiased=False).clamp_min(_LEAST_VARIANCE)
    return functional.mse_loss(output, wanted) / scale


@torch.no_grad()
def match_scale(module: nn.Module, x: Tensor, wanted: Tensor) -> None:
    """Start a block at the teacher's mean and deviation per channel, by its last batch norms.

    A fresh batch norm returns deviations of 1, whatever the teacher's; an optimiser whose steps do
    not depend on the size of gradients would take long to get there.

    Args:
        module: The block; one with an attribute ``residual`` that is true adds its input.
        x: What enters it, ``(N, C_in, H, W)``.
        wanted: What the teacher returns, ``(N, C_out, H', W')``.
    """
    added = any(getattr(m, "residual", False) for m in module.modules())
    rest = wanted - x if added and wanted.shape == x.shape else wanted
    norms: list[_BatchNorm] = []
    for one in reversed([m for m in module.modules() if isinstance(m, _BatchNorm) and m.affine]):
        norms.insert(0, one)
        if sum(norm.num_features for norm in norms) >= rest.shape[1]:
            break
    first = 0
    for norm in norms:
        own = rest[:, first : first + norm.num_features]
        count = own.shape[1]
        norm.weight[:count] = own.std((0, 2, 3), unbiased=False)
        norm.bias[:count] = own.mean((0, 2, 3))
        first += count
