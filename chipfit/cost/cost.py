# SPDX-License-Identifier: Apache-2.0
"""``Cost``: what a device charges, with units in the names, spread and provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chipfit.errors import BadInput

#: Keys that a Cost may carry; every one is better when lower.
COST_KEYS = (
    "latency_ms", "cycles", "macs", "params", "weight_bytes", "peak_sram_bytes", "flash_bytes",
    "energy_mj",
)  # fmt: skip

#: How a figure was come by.
PROVENANCES = ("compiled", "measured", "predicted", "modelled")


@dataclass(frozen=True)
class Cost:
    """What a network, or one operator, costs on a target.

    Args:
        values: Figures by key of :data:`COST_KEYS`; an unknown figure is absent, never made up.
        provenance: One of :data:`PROVENANCES`.
        spread: For measured keys, the half-width of the 95 % confidence interval, same unit.
    """

    values: Mapping[str, float]
    provenance: str
    spread: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = set(self.values) - set(COST_KEYS)
        if unknown:
            raise BadInput(f"unknown cost keys {sorted(unknown)}", f"known: {', '.join(COST_KEYS)}")
        if self.provenance not in PROVENANCES:
            raise BadInput(f"unknown provenance {self.provenance!r}")

    def __getitem__(self, key: str) -> float:
        """Return the figure ``key``.

        Raises:
            BadInput: The target does not know it.
        """
        if key not in self.values:
            raise BadInput(
                f"this cost has no {key}", f"it has {', '.join(self.values) or 'nothing'}"
            )
        return self.values[key]

    def get(self, key: str) -> float | None:
        """Return the figure ``key``, or ``None`` where it is unknown."""
        return self.values.get(key)

    def __contains__(self, key: object) -> bool:
        return key in self.values

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form; :meth:`from_json` restores it."""
        return {
            "values": dict(self.values),
            "provenance": self.provenance,
            "spread": dict(self.spread),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cost:
        """Restore a ``Cost`` from :meth:`to_json`."""
        return cls(dict(data["values"]), data["provenance"], dict(data.get("spread", {})))
