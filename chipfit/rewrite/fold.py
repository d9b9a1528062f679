# SPDX-License-Identifier: Apache-2.0
"""``fold_batchnorm``: batch norms become part of the convolution or linear layer beside them.

``W' = W * s``, ``b' = (b - mean) * s + beta`` with ``s = gamma / sqrt(var + eps)`` (Jacob et al.,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, arXiv 1712.05877, section 3.2).
"""

from __future__ import annotations

from chipfit.rewrite.collapse.network import fold_batchnorm

__all__ = ["fold_batchnorm"]
