# SPDX-License-Identifier: Apache-2.0
"""Matrix products and scaled dot-product attention."""

from __future__ import annotations

import math
from typing import Any

import torch

from chipfit.graph.record import Declined, Recorder, lowers


@lowers("matmul", "bmm", "mm")
def _matmul(g: Recorder, out: torch.Tensor, input: torch.Tensor, other: torch.Tensor) -> None:
    if g.is_constant(other) and other.dim() == 2:
        g.emit("linear", [input], out, params={"weight": other.t()}, bias=False)
    elif g.is_activation(input) and g.is_activation(other) and input.dim() == other.dim() >= 3:
        g.emit("matmul", [input, other], out)
    else:
        raise Declined(f"a product of {tuple(input.shape)} and {tuple(other.shape)}")


@lowers("rmatmul")
def _rmatmul(g: Recorder, out: torch.Tensor, input: torch.Tensor, other: torch.Tensor) -> None:
    _matmul(g, out, other, input)


@lowers("baddbmm")
def _baddbmm(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, batch1: torch.Tensor,
    batch2: torch.Tensor, *, beta: float = 1, alpha: float = 1,
) -> None:  # fmt: skip
    if alpha != 1 or beta not in (0, 1):
        raise Declined(f"alpha {alpha}, beta {beta}")
    product = torch.bmm(batch1, batch2)
    if beta == 0:
        g.emit("matmul", [batch1, batch2], out)
        return
    g.emit("matmul", [batch1, batch2], product)
    g.emit("add", [input, product], out)


@lowers("scaled_dot_product_attention")
def _attention(
    g: Recorder, out: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False, scale: Any = None,
    enable_gqa: bool = False,
) -> None:  # fmt: skip
    if attn_mask is not None or is_causal or enable_gqa:
        raise Declined("a mask, or grouped queries")
    factor = float(scale) if scale is not None else 1.0 / math.sqrt(query.shape[-1])
    scaled = query * factor
    g.emit("mul", [query, factor], scaled)
    turned = key.transpose(-1, -2)
    dims = (*range(key.dim() - 2), key.dim() - 1, key.dim() - 2)
    g.emit("permute", [key], turned, dims=dims)
    scores = scaled @ turned
    g.emit("matmul", [scaled, turned], scores)
    weights = scores.softmax(-1)
    g.emit("softmax", [scores], weights, axis=scores.dim() - 1)
    g.emit("matmul", [weights, value], out)
