# SPDX-License-Identifier: Apache-2.0
"""``Op``: one fused operator as a device sees it, frozen and hashable."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Shape = tuple[int, ...]

#: Activations that an operator can carry; ``"none"`` is the identity.
ACTIVATIONS = (
    "none", "relu", "relu6", "hardswish", "hardsigmoid", "sigmoid", "silu", "tanh", "gelu",
    "leaky_relu", "elu", "prelu", "softplus", "mish",
)  # fmt: skip


@dataclass(frozen=True)
class Op:
    """One operator with everything that its cost and its meaning depend on, but its weights.

    Shapes are PyTorch's: images are ``(N, C, H, W)``, sequences ``(N, L, C)``. Attributes by kind:

    ===================  ==============================================================
    ``conv2d``           ``kernel (kh, kw)``, ``stride``, ``dilation``, ``groups``, ``bias``,
                         ``padding (top, bottom, left, right)`` with zeros
    ``conv_transpose2d`` as ``conv2d``, with ``padding (h, w)`` and ``output_padding (h, w)``
    ``linear``           ``bias``; acts on the last axis
    ``matmul``           none; two activations, batched over the leading axes
    ``add sub mul div``  two inputs that broadcast; a constant input is a constant tensor
    ``maximum minimum``  likewise
    ``unary``            ``function``, one of ``abs exp log sqrt rsqrt erf sin cos sign floor ceil
                         round log1p expm1 pow``; ``pow`` has an ``exponent``
    ``clamp``            ``low`` and ``high``, a number or ``None``
    ``batch_norm``       none; a free-standing per-channel (axis 1) ``scale`` and ``shift``
    ``layer_norm``       ``axes`` (the normalised trailing axes), ``eps``, ``affine``
    ``group_norm``       ``groups``, ``eps``, ``affine``
    ``concat``           ``axis``
    ``slice``            ``axis``, ``start``, ``end``, ``step``
    ``gather``           ``axis``, ``index``: the constant positions that are read
    ``unfold``           columns of windows (im2col): ``kernel``, ``dilation``, ``padding (h, w)``,
                         ``stride``; ``fold`` sums them back to an image
    ``embedding``        ``rows`` of the table; its input holds integers
    ``pad``              ``padding``: one ``(before, after)`` per axis; ``value``
    ``max_pool2d``       ``kernel``, ``stride``, ``padding (top, bottom, left, right)``
    ``avg_pool2d``       the same and ``count_include_pad``
    ``mean`` ``amax``    ``axes``, ``keepdim``
    ``adaptive_avg_pool2d``  none; windows follow from the sizes, which do not divide
    ``cumsum``           ``axis``
    ``resize``           ``mode`` ``nearest|nearest-exact|bilinear|bicubic``, ``align_corners``
    ``pixel_shuffle``    ``factor``; ``pixel_unshuffle`` likewise
    ``softmax``          ``axis``
    ``activation``       none; the function is in :attr:`activation`
    ``permute``          ``dims``
    ``reshape``          none; the new shape is :attr:`output`
    ``unsupported``      ``aten``: the operator that is not understood
    ===================  ==============================================================

    Args:
        kind: One of the kinds above.
        inputs: Shapes of all inputs, constant tensors included.
        output: Shape of the only output.
        attrs: Sorted ``(name, value)`` pairs; values are JSON-able and hashable.
        activation: The function fused behind the operator, one of :data:`ACTIVATIONS`.
        constants: Positions in ``inputs`` that are constants (parameters of the network).
    """

    kind: str
    inputs: tuple[Shape, ...]
    output: Shape
    attrs: tuple[tuple[str, Any], ...] = ()
    activation: str = "none"
    constants: tuple[int, ...] = ()

    def __hash__(self) -> int:
        # Searches look operators up millions of times; nested tuples are slow to hash.
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(
            (self.kind, self.inputs, self.output, self.attrs, self.activation, self.constants)
        )

    def __reduce__(self) -> tuple[type[Op], tuple[Any, ...]]:
        # Cached values stay behind: hashes of text differ from process to process.
        fields = (self.kind, self.inputs, self.output, self.attrs, self.activation, self.constants)
        return Op, fields

    def __getitem__(self, name: str) -> Any:
        """Return the attribute ``name``; raises ``KeyError`` where the kind has none."""
        return self._attrs[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return the attribute ``name`` or ``default``."""
        return self._attrs.get(name, default)

    @cached_property
    def _attrs(self) -> dict[str, Any]:
        return dict(self.attrs)

    @property
    def depthwise(self) -> bool:
        """Whether this is a convolution with one input channel per group."""
        return self.kind == "conv2d" and self["groups"] == self.inputs[0][1] and self["groups"] > 1

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one forward pass: convolutions, linear and matmul only."""
        if self.kind == "conv2d":
            kh, kw = self["kernel"]
            return math.prod(self.output) * (self.inputs[0][1] // self["groups"]) * kh * kw
        if self.kind == "conv_transpose2d":
            kh, kw = self["kernel"]
            return math.prod(self.inputs[0]) * (self.output[1] // self["groups"]) * kh * kw
        if self.kind == "linear" or self.kind == "matmul":
            return math.prod(self.output) * self.inputs[0][-1]
        return 0

    @cached_property
    def parameter_shapes(self) -> dict[str, Shape]:
        """Shapes of the operator's own (folded) parameters by role.

        ``weight`` is ``(C_out, C_in / groups, kh, kw)`` or ``(out, in)``; ``bias`` is ``(C_out,)``.
        """
        slope: dict[str, Shape] = {}
        if self.activation == "prelu":
            slope = {"slope": (self.output[1],)}
        if self.kind == "conv2d":
            c_out, c_in = self.output[1], self.inputs[0][1]
            shapes = {"weight": (c_out, c_in // self["groups"], *self["kernel"])}
            return shapes | ({"bias": (c_out,)} if self["bias"] else {}) | slope
        if self.kind == "conv_transpose2d":
            c_out, c_in = self.output[1], self.inputs[0][1]
            shapes = {"weight": (c_in, c_out // self["groups"], *self["kernel"])}
            return shapes | ({"bias": (c_out,)} if self["bias"] else {}) | slope
        if self.kind == "embedding":
            return {"weight": (self["rows"], self.output[-1])}
        if self.kind == "linear":
            shapes = {"weight": (self.output[-1], self.inputs[0][-1])}
            return shapes | ({"bias": (self.output[-1],)} if self["bias"] else {}) | slope
        if self.kind == "batch_norm":
            return {"scale": (self.output[1],), "shift": (self.output[1],)} | slope
        if self.kind == "layer_norm" and self["affine"]:
            shape = tuple(self.output[axis] for axis in self["axes"])
            return {"weight": shape, "bias": shape} | slope
        if self.kind == "group_norm" and self["affine"]:
            return {"weight": (self.output[1],), "bias": (self.output[1],)} | slope
        return slope

    @property
    def parameter_count(self) -> int:
        """Number of folded parameters, constant inputs included."""
        own = sum(math.prod(shape) for shape in self.parameter_shapes.values())
        return own + sum(math.prod(self.inputs[i]) for i in self.constants)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able description; :meth:`from_json` restores it."""
        return {
            "kind": self.kind,
            "inputs": [list(shape) for shape in self.inputs],
            "output": list(self.output),
            "attrs": dict(self.attrs),
            "activation": self.activation,
            "constants": list(self.constants),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Op:
        """Restore an ``Op`` from :meth:`to_json`."""
        return make_op(
            data["kind"],
            [tuple(shape) for shape in data["inputs"]],
            tuple(data["output"]),
            activation=data["activation"],
            constants=data["constants"],
            **data["attrs"],
        )

    @cached_property
    def key(self) -> str:
        """A stable identity (hex) that look-up tables use."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value


def make_op(
    kind: str,
    inputs: list[Shape] | tuple[Shape, ...],
    output: Shape,
    *,
    activation: str = "none",
    constants: tuple[int, ...] | list[int] = (),
    **attrs: Any,
) -> Op:
    """Build an :class:`Op` from keyword attributes.

    >>> make_op("linear", [(1, 8)], (1, 4), bias=True).macs
    32
    """
    return Op(
        kind,
        tuple(tuple(int(d) for d in shape) for shape in inputs),
        tuple(int(d) for d in output),
        tuple(sorted((name, _frozen(value)) for name, value in attrs.items())),
        activation,
        tuple(constants),
    )
