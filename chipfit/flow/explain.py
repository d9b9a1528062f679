# SPDX-License-Identifier: Apache-2.0
"""``explain``: why a network is, or is not, faster in int8 on a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from chipfit.flow.explain_layers import (
    LayerPair,
    conversion_kinds,
    conversion_share,
    pair_layers,
)
from chipfit.flow.explain_verdict import fixed_verdict, measured_verdict, no_int8
from chipfit.flow.network import InputShape, load_network
from chipfit.graph.capture import capture
from chipfit.graph.workload import Program
from chipfit.machine import cpu_name, has_vnni
from chipfit.targets import Target, create
from chipfit.targets.compare import Comparison, compare_runs
from chipfit.targets.layer import LayerCost
from chipfit.targets.measured import MeasuredTarget
from chipfit.targets.onnx_target import OnnxTarget
from chipfit.targets.timing import absolute_ms

#: The int8 schemes that are timed beside the one that suits the processor: variant, 7-bit weights.
OTHER_SCHEMES = (("u8s8", "yes"), ("u8s8", "no"), ("s8s8", "no"), ("u8u8", "no"))


@dataclass(frozen=True)
class Explanation:
    """What int8 does to a network on a target.

    Args:
        network: Its name.
        target: The target, without a precision.
        fingerprint: Of the target in int8, or as it is where it has no choice.
        verdict: Sentences for a person, the most important first.
        float_ms: Latency in float32; ``None`` where nothing was timed.
        comparison: Time in int8 divided by time in float32, and the A/A spread.
        scheme: The int8 scheme, ``""`` where the target has none to choose.
        others: Other schemes by name, also against float32.
        conversions: Shares of the int8 network's time by kind of conversion.
        float_conversions: The same in the float network.
        layers: Layer by layer, where both precisions run here.
        placed: Layer by layer, where the target has one precision only.
    """

    network: str
    target: str
    fingerprint: str
    verdict: tuple[str, ...]
    float_ms: float | None = None
    comparison: Comparison | None = None
    scheme: str = ""
    others: Mapping[str, Comparison] = field(default_factory=dict)
    conversions: Mapping[str, float] = field(default_factory=dict)
    float_conversions: Mapping[str, float] = field(default_factory=dict)
    layers: tuple[LayerPair, ...] = ()
    placed: tuple[LayerCost, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the form that ``chipfit explain --json`` prints."""
        return {
            "network": self.network, "target": self.target, "fingerprint": self.fingerprint,
            "cpu": cpu_name(), "vnni": has_vnni(), "verdict": list(self.verdict),
            "float_ms": self.float_ms,
            "int8": self.comparison.to_json() if self.comparison else None,
            "scheme": self.scheme,
            "other_schemes": {name: c.to_json() for name, c in self.others.items()},
            "conversions": dict(self.conversions),
            "float_conversions": dict(self.float_conversions),
            "layers": [layer.to_json() for layer in self.layers] or [
                {"name": x.name, "kind": x.kind, "runs_on": x.runs_on, "precision": x.precision,
                 "cost": dict(x.cost.values)}
                for x in self.placed
            ],
        }  # fmt: skip

    def __str__(self) -> str:
        """Return the verdict as plain text."""
        return "\n".join((f"{self.network} on {self.target}", *(f"  {x}" for x in self.verdict)))


def explain(
    net: str | nn.Module, target: str | Target, input_shape: InputShape | None = None
) -> Explanation:
    """Explain what int8 does to a network on a target.

    Where the target runs both precisions, the network is timed in both, in one interleaved session
    with the float network once more against itself; shares of layers are the runtime's own
    profile. Accuracy is not looked at: activations have the ranges of one random input.

    Args:
        net: A name as on the command line, or a module.
        target: A name from ``chipfit targets``, or a target; int8 options choose the scheme.
        input_shape: ``(1, C, H, W)``; by default the network's own.

    Raises:
        UnknownName: A name is unknown.
        UnsupportedOp: A measured target cannot run the network.
    """
    loaded = load_network(net, input_shape=input_shape)
    program = capture(loaded.net, loaded.examples())
    chosen = create(target) if isinstance(target, str) else target
    name = loaded.name
    if isinstance(chosen, MeasuredTarget) and "int8" in chosen.precisions:
        return _both(name, chosen, program)
    if chosen.precision != "int8" or chosen.precisions:
        return Explanation(name, chosen.spec, chosen.fingerprint, no_int8(chosen))
    refused = chosen.refusals(program.workload)
    placed = () if refused else chosen.cost(program).layers
    verdict = fixed_verdict(chosen, refused, placed)
    return Explanation(name, chosen.spec, chosen.fingerprint, verdict, placed=placed)


def _both(name: str, chosen: MeasuredTarget, program: Program) -> Explanation:
    from chipfit.export.onnx_int8 import quantisable_kinds

    floating, int8 = chosen.in_precision("float32"), chosen.in_precision("int8")
    others = _other_schemes(int8)
    makers = [device.makers([program])[0] for device in (floating, int8, *others.values())]
    quick = replace(chosen.protocol, min_rounds=5, max_rounds=10, sessions=1)
    with floating.settings():
        again, comparison, *rest = compare_runs(makers, chosen.protocol, chosen.sampler)
        float_ms = absolute_ms(makers[0], quick, chosen.sampler)
    in_float, in_int8 = floating.runtime_nodes(program), int8.runtime_nodes(program)
    layers = pair_layers(program.workload, in_float, in_int8, comparison.ratio, quantisable_kinds())
    compared = dict(zip(others, rest, strict=True))
    scheme = int8.scheme if isinstance(int8, OnnxTarget) else None
    verdict = measured_verdict(
        int8, comparison, compared, layers,
        conversion_share(in_float), conversion_kinds(in_int8), scheme,
    )  # fmt: skip
    return Explanation(
        name, floating.name, int8.fingerprint, verdict, float_ms, comparison,
        scheme.label if scheme else "", compared, conversion_kinds(in_int8),
        conversion_kinds(in_float), tuple(layers),
    )  # fmt: skip


def _other_schemes(int8: MeasuredTarget) -> dict[str, OnnxTarget]:
    """Return the target in the schemes that it was not asked for, by their labels."""
    if not isinstance(int8, OnnxTarget) or int8.scheme is None:
        return {}
    made = [
        type(int8)(int8.threads, int8.protocol, "int8", variant, reduce_range)
        for variant, reduce_range in _schemes_of(int8)
    ]
    return {t.scheme.label: t for t in made if t.scheme and t.scheme != int8.scheme}


def _schemes_of(int8: OnnxTarget) -> Sequence[tuple[str, str]]:
    # OpenVINO chooses its own kernels whatever the signs of a QDQ file.
    return OTHER_SCHEMES if int8.name == "onnxruntime-cpu" else ()
