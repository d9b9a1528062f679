# SPDX-License-Identifier: Apache-2.0
"""Find the range of every tensor by running a program on sample batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from chipfit.errors import BadInput
from chipfit.export.tflite.normalisation import intermediates
from chipfit.graph.execute import WorkloadModule
from chipfit.graph.workload import Node, Program

METHODS = ("percentile", "mse", "minmax")

_BINS = 4096
_SAMPLE = 1 << 20
#: Share of the values that "percentile" keeps.
_KEPT = 0.9999
#: Values that steer others are never clipped: a clipped variance spoils a whole norm.
_EXACT_ROLES = ("mean", "mean_hw", "var_hw", "var", "eps", "rstd")


@dataclass
class Histogram:
    """Counts of the values of one tensor over all batches.

    Bins cover ``[-reach, reach]``; where a batch exceeds them the reach doubles and neighbouring
    bins merge exactly, so the result depends on the order of batches only through the first reach.
    """

    low: float = np.inf
    high: float = -np.inf
    reach: float = 0.0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(_BINS))

    def add(self, values: torch.Tensor) -> None:
        """Count ``values`` (any shape); the extremes are exact, large tensors are sampled."""
        flat = values.detach().flatten()
        low, high = (float(v) for v in torch.aminmax(flat))
        self.low, self.high = min(self.low, low), max(self.high, high)
        peak = max(abs(low), abs(high))
        if not np.isfinite(peak):
            return
        if self.reach == 0.0:
            self.reach = max(peak, 1e-12)
        while peak > self.reach:
            merged = np.zeros(_BINS)
            merged[_BINS // 4 : 3 * _BINS // 4] = self.counts.reshape(-1, 2).sum(1)
            self.counts, self.reach = merged, 2 * self.reach
        sample = flat[:: -(-flat.numel() // _SAMPLE)].float()
        self.counts += torch.histc(sample, _BINS, -self.reach, self.reach).double().numpy()

    def range(self, method: str) -> tuple[float, float]:
        """Return the range that ``method`` chooses, within the exact extremes."""
        if method == "minmax" or self.counts.sum() == 0:
            return self.low, self.high
        return self._percentile() if method == "percentile" else self._least_error()

    def _percentile(self) -> tuple[float, float]:
        share = np.cumsum(self.counts) / self.counts.sum()
        edges = np.linspace(-self.reach, self.reach, _BINS + 1)
        tail = (1.0 - _KEPT) / 2
        low = edges[int(np.searchsorted(share, tail, side="right"))]
        high = edges[min(int(np.searchsorted(share, 1.0 - tail, side="left")) + 1, _BINS)]
        return max(self.low, float(low)), min(self.high, float(high))

    def _least_error(self) -> tuple[float, float]:
        centres = (np.arange(_BINS) + 0.5) * (2 * self.reach / _BINS) - self.reach
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        best, chosen = np.inf, (self.low, self.high)
        for left in np.linspace(1.0, 0.3, 15):
            for right in np.linspace(1.0, 0.3, 15):
                a, b = low * left, high * right
                step = max(b - a, 1e-12) / 255
                rounded = np.round((np.clip(centres, a, b) - a) / step) * step + a
                error = float((self.counts * (rounded - centres) ** 2).sum())
                if error < best:
                    best, chosen = error, (max(self.low, a), min(self.high, b))
            if low == 0.0:
                break
        return chosen


def calibrate(
    program: Program,
    batches: Iterable[torch.Tensor | Sequence[torch.Tensor]],
    method: str = "percentile",
) -> dict[str, tuple[float, float]]:
    """Return the range of every tensor of ``program``, intermediate values of norms included.

    Args:
        program: What will be exported.
        batches: Inputs, ``(N, C, H, W)`` each, or a sequence of tensors for several inputs.
        method: ``"percentile"`` drops the outermost 0.01 % of the values, ``"mse"`` minimises
            the squared rounding and clipping error, ``"minmax"`` keeps everything. Inputs and
            outputs of the network are never clipped.

    Raises:
        BadInput: No batch was given, the method is unknown, or values are not finite.
    """
    if method not in METHODS:
        raise BadInput(f"unknown calibration method {method!r}", f"known: {', '.join(METHODS)}")
    load = program.workload
    readers: dict[str, list[Node]] = {}
    for node in load.nodes:
        readers.setdefault(node.inputs[0], []).append(node)
    histograms: dict[str, Histogram] = {}

    def observe(name: str, value: torch.Tensor) -> None:
        histograms.setdefault(name, Histogram()).add(value)
        for node in readers.get(name, ()):
            for role, part in intermediates(node.op, value).items():
                histograms.setdefault(f"{node.output}:{role}", Histogram()).add(part)

    module = WorkloadModule(program, observe).eval()
    count = 0
    with torch.no_grad():
        for batch in batches:
            module(*((batch,) if isinstance(batch, torch.Tensor) else batch))
            count += 1
    if count == 0:
        raise BadInput("no calibration batch was given", "pass at least one batch of images")
    exact = {*load.inputs, *load.outputs}
    ranges = {}
    for name, histogram in histograms.items():
        if not np.isfinite([histogram.low, histogram.high]).all():
            raise BadInput(f"tensor {name!r} holds infinities or NaN during calibration")
        keep = name in exact or name.rpartition(":")[2] in _EXACT_ROLES
        ranges[name] = histogram.range("minmax" if keep else method)
    return ranges
