# SPDX-License-Identifier: Apache-2.0
"""``DropPath``: stochastic depth.

Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016, arXiv 1603.09382.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput


class DropPath(nn.Module):
    """Zero the branch of a residual block for some images of a batch while training.

    What is kept is divided by the probability of being kept, so that the expectation stays
    (section 3 of the paper scales at test time instead). In evaluation mode it does nothing.

    Args:
        probability: Of an image losing the branch.

    Raises:
        BadInput: ``probability`` does not lie in ``[0, 1)``.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0.0 <= probability < 1.0:
            raise BadInput(f"drop_path={probability} must lie between 0 and 1, 1 excluded")
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, ...)`` to the same shape."""
        if not self.training or self.probability == 0.0:
            return x
        kept = 1.0 - self.probability
        mask = torch.empty(x.shape[0], *[1] * (x.dim() - 1), device=x.device, dtype=x.dtype)
        return x * mask.bernoulli_(kept).div_(kept)

    def extra_repr(self) -> str:
        """Return the probability."""
        return f"{self.probability:g}"
