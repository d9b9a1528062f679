# SPDX-License-Identifier: Apache-2.0
"""``compare``: which of several networks is faster on a target, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from chipfit.errors import BadInput
from chipfit.flow.network import InputShape, load_network
from chipfit.graph.capture import capture
from chipfit.targets import Target, create
from chipfit.targets.compare import Comparison
from chipfit.targets.compare import compare as compare_costs


@dataclass(frozen=True)
class Standing:
    """One network beside the first.

    Args:
        network: Its name.
        macs: Multiply-accumulates.
        params: Parameters.
        comparison: Its time divided by the first one's. The first network's own is its A/A pair
            where times are measured.
    """

    network: str
    macs: int
    params: int
    comparison: Comparison


@dataclass(frozen=True)
class NetworkComparison:
    """Networks compared with the first of them.

    Args:
        target: Name of the target, with its options.
        fingerprint: Everything the figures depend on besides the networks.
        provenance: How they were come by.
        standings: One per network, in order.
    """

    target: str
    fingerprint: str
    provenance: str
    standings: tuple[Standing, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the form that ``chipfit compare --json`` prints."""
        return {
            "target": self.target, "fingerprint": self.fingerprint, "provenance": self.provenance,
            "noise": self.standings[0].comparison.noise,
            "networks": [
                {"network": s.network, "macs": s.macs, "params": s.params,
                 **s.comparison.to_json()}
                for s in self.standings
            ],
        }  # fmt: skip

    def __str__(self) -> str:
        """Return one line per network."""
        lines = [f"{self.target}, {self.provenance}: time divided by the first network's"]
        for s in self.standings:
            c = s.comparison
            lines.append(f"  {s.network:24} {c.ratio:6.3f} [{c.low:.3f}, {c.high:.3f}] {c.verdict}")
        return "\n".join(lines)


def compare(
    nets: Sequence[str | nn.Module],
    target: str | Target,
    input_shape: InputShape | None = None,
) -> NetworkComparison:
    """Compare the latency of networks on a target; all of them against the first.

    On a measured target they run interleaved in one session, with the first once more against
    itself, so that what the machine cannot tell apart is not told apart.

    Args:
        nets: Names as on the command line, or modules; at least two.
        target: A name from ``chipfit targets``, or a target.
        input_shape: ``(1, C, H, W)`` for all of them; by default each one's own.

    Raises:
        BadInput: There are fewer than two networks, or the target tells no latency.
        UnknownName: A name is unknown.
        UnsupportedOp: The target cannot run a network.
    """
    if len(nets) < 2:
        raise BadInput("comparing takes two networks or more")
    chosen = create(target) if isinstance(target, str) else target
    loaded = [load_network(net, input_shape=input_shape) for net in nets]
    programs = [capture(item.net, item.examples()) for item in loaded]
    standings = tuple(
        Standing(item.name, program.workload.macs, program.workload.parameter_count, comparison)
        for item, program, comparison in zip(
            loaded, programs, compare_costs(chosen, programs), strict=True
        )
    )
    return NetworkComparison(chosen.spec, chosen.fingerprint, chosen.provenance, standings)
