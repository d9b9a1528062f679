# SPDX-License-Identifier: Apache-2.0
"""Why int8 is, or is not, faster: sentences from measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chipfit.export.onnx_int8 import Int8Scheme
from chipfit.flow.explain_layers import LayerPair
from chipfit.machine import has_vnni
from chipfit.targets import Target
from chipfit.targets.compare import Comparison
from chipfit.targets.layer import LayerCost, Refusal

#: Shares below this are not worth a sentence.
SMALL = 0.02
#: A kind of layer that gains less than this is named as hardly faster.
HARDLY_FASTER = 1.25


def measured_verdict(
    target: Target, comparison: Comparison, others: Mapping[str, Comparison],
    layers: Sequence[LayerPair], float_conversions: float, conversions: Mapping[str, float],
    scheme: Int8Scheme | None,
) -> tuple[str, ...]:  # fmt: skip
    """Return the verdict on a target that runs both precisions."""
    lines = [headline(comparison), processor(scheme)]
    lines += [placement(layers), *by_kind(layers)]
    total = sum(conversions.values())
    kinds = ", ".join(f"{k} {_percent(v)}" for k, v in list(conversions.items())[:4])
    lines.append(
        f"Conversions of layout and precision take {_percent(total)} of the int8 network's time"
        + (f" ({kinds})" if kinds else "")
        + f", and {_percent(float_conversions)} of the float network's."
    )
    lines += staying(layers)
    lines += schemes(comparison, others, scheme)
    return tuple(line for line in lines if line)


def headline(comparison: Comparison) -> str:
    """Return what came out."""
    interval = f"[{1 / comparison.high:.2f}, {1 / comparison.low:.2f}]"
    noise = f"float32 against itself: {_percent(comparison.noise)}"
    speed = 1 / comparison.ratio
    if comparison.verdict == "indistinguishable":
        return f"int8 is not distinguishable from float32: {speed:.2f}x {interval} ({noise})."
    return (
        f"int8 is {comparison.verdict} than float32: {speed:.2f}x its speed {interval} ({noise})."
    )


def processor(scheme: Int8Scheme | None) -> str:
    """Return what the processor means for int8."""
    if scheme is None:
        return ""
    if has_vnni():
        return (
            "The processor has VNNI: four byte products are added to 32 bits in one instruction, "
            f"without saturation; the scheme is {scheme.label}."
        )
    chosen = {
        True: "so weights keep to 7 bits, lest these sums saturate",
        False: "which saturates with weights of 8 bits: expect a loss of accuracy",
    }
    how = (
        chosen[not scheme.saturates]
        if scheme.variant == "u8s8"
        else ("or widens both factors first, as this scheme needs")
    )
    return (
        "The processor has no VNNI: it adds byte products in pairs into 16 bits, "
        f"{how}; the scheme is {scheme.label}."
    )


def placement(layers: Sequence[LayerPair]) -> str:
    """Return how much really runs in int8."""
    executed = [layer for layer in layers if layer.executed]
    whole = sum(layer.int8_share for layer in executed) or 1.0
    staying = sum(layer.staying_share for layer in executed)
    number = sum(x.precision == "int8" for x in executed)
    return (
        f"{number} of {len(executed)} layers run in int8 alone; "
        f"{_percent(1 - staying / whole)} of the layers' time is int8 arithmetic."
    )


def by_kind(layers: Sequence[LayerPair]) -> list[str]:
    """Return the speed-up of each kind of layer, as far as it matters, and what holds it back."""
    gains: dict[str, tuple[float, float]] = {}
    for layer in layers:
        if layer.speed_up is not None:
            was, now = gains.get(layer.kind, (0.0, 0.0))
            gains[layer.kind] = (
                was + layer.float_share, now + layer.float_share / layer.speed_up
            )  # fmt: skip
    if not gains:
        return []
    large = sorted((k for k in gains if gains[k][0] >= SMALL), key=lambda k: -gains[k][0])
    parts = [f"{k} {gains[k][0] / gains[k][1]:.2f}x ({_percent(gains[k][0])})" for k in large]
    lines = [f"By kind, with the share of float32's time: {', '.join(parts)}."] if parts else []
    whole = sum(now for _, now in gains.values())
    slow = [k for k in large if gains[k][0] / gains[k][1] < HARDLY_FASTER]
    if slow:
        share = sum(gains[k][1] for k in slow) / whole
        lines.append(
            f"Hardly faster, or slower: {', '.join(slow)}; in int8 they are {_percent(share)} "
            "of the layers' time."
        )
    return lines


def staying(layers: Sequence[LayerPair]) -> list[str]:
    """Return which layers stay in float, by reason, the dearest first."""
    by_reason: dict[str, list[LayerPair]] = {}
    for layer in layers:
        if layer.reason:
            by_reason.setdefault(layer.reason, []).append(layer)
    costs = {reason: sum(x.staying_share for x in group) for reason, group in by_reason.items()}
    lines = []
    for reason in sorted(by_reason, key=lambda r: -costs[r]):
        group = by_reason[reason]
        more = f" and {len(group) - 3} more" if len(group) > 3 else ""
        names = ", ".join(x.name for x in group[:3]) + more
        lines.append(
            f"In float, {_percent(costs[reason])} of the int8 network's time: {names}: {reason}."
        )
    return lines


def schemes(
    comparison: Comparison, others: Mapping[str, Comparison], scheme: Int8Scheme | None
) -> list[str]:
    """Return how the other int8 schemes do, and which of them is dangerous."""
    if not others or scheme is None:
        return []
    parts = [f"{label} {1 / c.ratio:.2f}x" for label, c in others.items()]
    lines = [
        f"Other schemes against float32: {', '.join(parts)} (this one: "
        f"{scheme.label} {1 / comparison.ratio:.2f}x)."
    ]
    if not has_vnni() and "u8s8" in others:
        lines.append("u8s8 with 8-bit weights saturates on this processor: do not ship it.")
    return lines


def no_int8(target: Target) -> tuple[str, ...]:
    """Return the verdict on a target without int8."""
    return (
        f"{target.name} has no int8 path: it runs {', '.join(target.precisions)} only.",
        "On this machine's processor, onnxruntime-cpu and openvino-cpu run int8.",
    )


def fixed_verdict(
    target: Target, refused: Sequence[Refusal], layers: Sequence[LayerCost]
) -> tuple[str, ...]:
    """Return the verdict on a target that runs int8 and nothing else."""
    lines = [f"{target.name} has no choice: everything that it runs is int8."]
    if refused:
        named = "; ".join(f"{r.name}: {r.kind} ({r.reason})" for r in refused[:12])
        more = f"; and {len(refused) - 12} more" if len(refused) > 12 else ""
        return (*lines, f"It cannot run {len(refused)} operator(s): {named}{more}.")
    places = sorted({layer.runs_on for layer in layers if layer.runs_on})
    known = [x for x in layers if "latency_ms" in x.cost]
    whole = sum(x.cost["latency_ms"] for x in known) or 1.0
    for place in places:
        there = [x for x in layers if x.runs_on == place]
        share = sum(x.cost.get("latency_ms") or 0.0 for x in there) / whole
        names = ""
        if place == "cpu" and len(places) > 1:
            names = ": " + ", ".join(f"{x.name} ({x.kind})" for x in there[:12])
        part = f", {_percent(share)} of the time" if known else ""
        lines.append(f"{len(there)} of {len(layers)} layers run on the {place}{part}{names}.")
    floating = [x for x in layers if x.precision.startswith("float")]
    if floating:
        lines.append(f"In float: {', '.join(x.name for x in floating[:12])}.")
    return tuple(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
