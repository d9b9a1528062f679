# SPDX-License-Identifier: Apache-2.0
"""Re-estimation of batch-norm statistics after a network was changed."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def recalibrate_batchnorm(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace the running statistics of every batch norm by the averages over ``batches``.

    Everything else stays in evaluation mode, so dropout does not act; modes are restored.

    Args:
        model: Changed in place.
        batches: Inputs ``(N, C, H, W)`` as the model takes them; all batches weigh the same.

    Returns:
        The number of batches used; with none the statistics are left alone.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    used = 0
    model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                if used == 0:
                    for norm in norms:
                        norm.reset_running_stats()
                        norm.momentum = None  # a plain average over the batches
                        norm.train()
                model(batch)
                used += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    return used
