# SPDX-License-Identifier: Apache-2.0
"""Matrix products, ``einsum`` and scaled dot-product attention."""

from __future__ import annotations

import math
from typing import Any

import torch

from chipfit.graph.handlers import Declined, lowers
from chipfit.graph.record import Recorder


def _reshaped(g: Recorder, x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    if tuple(x.shape) == shape:
        return x
    result = x.reshape(shape)
    if g.is_activation(x):
        g.emit("reshape", [x], result)
    return result


def _permuted(g: Recorder, x: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    if dims == tuple(range(x.dim())):
        return x
    result = x.permute(dims)
    if g.is_activation(x):
        g.emit("permute", [x], result, dims=dims)
    return result


def _matrix(x: torch.Tensor) -> torch.Tensor | None:
    """Return ``x`` as a matrix where all its leading axes have size one."""
    if x.dim() >= 2 and math.prod(x.shape[:-2]) == 1:
        return x.reshape(x.shape[-2:])
    return None


def product(g: Recorder, out: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """Record ``out = a @ b``; a constant matrix makes it a linear layer."""
    if a.dim() == 1 or b.dim() == 1:
        left = _reshaped(g, a, (1, *a.shape)) if a.dim() == 1 else a
        right = _reshaped(g, b, (*b.shape, 1)) if b.dim() == 1 else b
        whole = left @ right
        product(g, whole, left, right)
        g.emit("reshape", [whole], out)
        return
    matrix = _matrix(b) if g.is_constant(b) else None
    if matrix is not None and a.dim() >= b.dim():
        g.emit("linear", [a], out, params={"weight": matrix.t()}, bias=False)
        return
    matrix = _matrix(a) if g.is_constant(a) else None
    if matrix is not None and b.dim() >= a.dim():
        swap = (*range(b.dim() - 2), b.dim() - 1, b.dim() - 2)
        turned = _permuted(g, b, swap)
        rows = turned @ matrix.t()
        g.emit("linear", [turned], rows, params={"weight": matrix}, bias=False)
        g.emit("permute", [rows], out, dims=swap)
        return
    rank = max(a.dim(), b.dim(), 3)
    left = _reshaped(g, a, (*[1] * (rank - a.dim()), *a.shape))
    right = _reshaped(g, b, (*[1] * (rank - b.dim()), *b.shape))
    if out.dim() == rank:
        g.emit("matmul", [left, right], out)
        return
    whole = left @ right
    g.emit("matmul", [left, right], whole)
    g.emit("reshape", [whole], out)


@lowers("matmul", "bmm", "mm", "mv", "dot")
def _matmul(g: Recorder, out: torch.Tensor, input: torch.Tensor, other: torch.Tensor) -> None:
    product(g, out, input, other)


@lowers("rmatmul")
def _rmatmul(g: Recorder, out: torch.Tensor, input: torch.Tensor, other: torch.Tensor) -> None:
    product(g, out, other, input)


@lowers("baddbmm")
def _baddbmm(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, batch1: torch.Tensor,
    batch2: torch.Tensor, *, beta: float = 1, alpha: float = 1,
) -> None:  # fmt: skip
    if beta == 0 and alpha == 1:
        product(g, out, batch1, batch2)
        return
    part = torch.bmm(batch1, batch2)
    product(g, part, batch1, batch2)
    if alpha != 1:
        scaled = part * alpha
        g.emit("mul", [part, float(alpha)], scaled, broadcast=True)
        part = scaled
    if beta == 0:
        g.alias(out, part)
        return
    if beta != 1:
        scaled = input * beta
        if g.is_activation(input):
            g.emit("mul", [input, float(beta)], scaled, broadcast=True)
        input = scaled
    g.emit("add", [input, part], out, broadcast=True)


@lowers("einsum")
def _einsum(g: Recorder, out: torch.Tensor, equation: Any, *operands: Any) -> None:
    tensors = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else (
        operands
    )  # fmt: skip
    if not isinstance(equation, str) or len(tensors) > 2:
        raise Declined("sublists, or more than two operands")
    inputs, labels = _labels(equation.replace(" ", ""), [x.dim() for x in tensors])
    if any(len(set(own)) != len(own) for own in inputs):
        raise Declined("a diagonal")
    if len(tensors) == 1:
        if set(inputs[0]) != set(labels):
            raise Declined("a sum over one operand")
        dims = tuple(inputs[0].index(label) for label in labels)
        g.alias(out, _permuted(g, tensors[0], dims))
        return
    _contract(g, out, tensors[0], tensors[1], inputs[0], inputs[1], labels)


def _labels(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """Return the axis letters of every operand and of the result, dots written out."""
    left, arrow, right = equation.partition("->")
    parts = left.split(",")
    spare = [chr(code) for code in range(0x3B1, 0x3B1 + 24)]
    dots = max(rank - len(p.replace("...", "")) for p, rank in zip(parts, ranks, strict=True))
    full = [
        p.replace("...", "".join(spare[dots - (rank - len(p) + 3) : dots]))
        for p, rank in zip(parts, ranks, strict=True)
    ]
    if not arrow:
        once = sorted(c for c in set("".join(parts)) - {"."} if "".join(parts).count(c) == 1)
        right = ("..." if dots > 0 else "") + "".join(once)
    return full, right.replace("...", "".join(spare[: max(dots, 0)]))


def _contract(
    g: Recorder, out: torch.Tensor, a: torch.Tensor, b: torch.Tensor, of_a: str, of_b: str,
    labels: str,
) -> None:  # fmt: skip
    size = dict(zip(of_a, a.shape, strict=True))
    for label, own in zip(of_b, b.shape, strict=True):
        if size.setdefault(label, own) != own:
            raise Declined("axes of size one that broadcast")
    batch = [c for c in labels if c in of_a and c in of_b]
    inner = [c for c in of_a if c in of_b and c not in labels]
    rows = [c for c in of_a if c not in of_b]
    columns = [c for c in of_b if c not in of_a]
    if any(c not in labels for c in rows + columns):
        raise Declined("a sum over one operand")

    def sizes(names: list[str]) -> tuple[int, ...]:
        return tuple(size[name] for name in names)

    def matrix(x: torch.Tensor, own: str, order: tuple[list[str], list[str]]) -> torch.Tensor:
        dims = tuple(own.index(c) for c in (*batch, *order[0], *order[1]))
        shape = (*sizes(batch), math.prod(sizes(order[0])), math.prod(sizes(order[1])))
        return _reshaped(g, _permuted(g, x, dims), shape)

    left, right = matrix(a, of_a, (rows, inner)), matrix(b, of_b, (inner, columns))
    result = left @ right
    product(g, result, left, right)
    natural = [*batch, *rows, *columns]
    split = _reshaped(g, result, sizes(natural))
    g.alias(out, _permuted(g, split, tuple(natural.index(c) for c in labels)))


def _additive(mask: torch.Tensor) -> torch.Tensor:
    zeros = torch.zeros(mask.shape, device=mask.device)
    return zeros.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else mask


@lowers("scaled_dot_product_attention")
def _attention(
    g: Recorder, out: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False, scale: Any = None,
    enable_gqa: bool = False,
) -> None:  # fmt: skip
    mask = attn_mask
    if enable_gqa and query.shape[-3] != key.shape[-3]:
        raise Declined("grouped queries")
    if mask is not None and mask.dtype == torch.bool and g.is_activation(mask):
        raise Declined("a mask that depends on the input")
    if is_causal:
        size = (query.shape[-2], key.shape[-2])
        mask = torch.ones(size, dtype=torch.bool, device=query.device).tril()
    factor = float(scale) if scale is not None else 1.0 / math.sqrt(query.shape[-1])
    scaled = query * factor
    g.emit("mul", [query, factor], scaled)
    turned = key.transpose(-1, -2)
    if g.is_activation(key):
        dims = (*range(key.dim() - 2), key.dim() - 1, key.dim() - 2)
        g.emit("permute", [key], turned, dims=dims)
    scores = scaled @ turned
    product(g, scores, scaled, turned)
    if mask is not None:
        bias = _additive(mask) if g.is_constant(mask) else mask
        masked = scores + bias
        g.emit("add", [scores, bias], masked, broadcast=True)
        scores = masked
    weights = scores.softmax(-1)
    g.emit("softmax", [scores], weights, axis=scores.dim() - 1)
    product(g, out, weights, value)
