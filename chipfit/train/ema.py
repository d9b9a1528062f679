# SPDX-License-Identifier: Apache-2.0
"""An exponential moving average of a network's weights and statistics."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class MovingAverage:
    """``average = decay * average + (1 - decay) * value`` for every floating-point tensor.

    Early on the decay is at most ``(1 + steps) / (10 + steps)``, so that the random start fades.

    Args:
        model: Whose state is averaged; the average starts at its present values.
        decay: Between 0 and 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in _state(model).items()}

    def update(self, model: nn.Module, step: int) -> None:
        """Take in the present values after ``step`` optimizer steps."""
        weight = 1.0 - min(self.decay, (1.0 + step) / (10.0 + step))
        with torch.no_grad():
            for name, value in _state(model).items():
                self.values[name].lerp_(value, weight)

    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Put back ``values`` of a checkpoint."""
        for name, value in values.items():
            self.values[name].copy_(value)

    def apply_(self, model: nn.Module) -> None:
        """Overwrite the model's values with the average."""
        with torch.no_grad():
            for name, value in _state(model).items():
                value.copy_(self.values[name])


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: v for name, v in model.state_dict().items() if v.is_floating_point()}
