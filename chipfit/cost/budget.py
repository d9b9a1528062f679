# SPDX-License-Identifier: Apache-2.0
"""``Budget``: upper bounds on what a network may cost."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from chipfit.cost.cost import COST_KEYS, Cost
from chipfit.errors import BadInput

_NUMBER = re.compile(r"^\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z%]*)\s*$")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3}


@dataclass(frozen=True)
class Budget:
    """Upper bounds by key of :data:`chipfit.cost.cost.COST_KEYS`.

    >>> budget = Budget.parse("latency_ms=50%,peak_sram_bytes=256k")
    >>> original = Cost({"latency_ms": 8.0, "peak_sram_bytes": 500_000}, "compiled")
    >>> budget.resolve(original).limits["latency_ms"]
    4.0

    Args:
        limits: Absolute bounds, in the unit of their key.
        fractions: Bounds that are a fraction of the original's cost; :meth:`resolve` makes them
            absolute.
    """

    limits: Mapping[str, float] = field(default_factory=dict)
    fractions: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("limits", "fractions"):
            values = {_known(key): _positive(key, v) for key, v in getattr(self, name).items()}
            object.__setattr__(self, name, MappingProxyType(values))
        twice = set(self.limits) & set(self.fractions)
        if twice:
            raise BadInput(f"the budget bounds {', '.join(sorted(twice))} twice")
        if not self.limits and not self.fractions:
            raise BadInput("the budget is empty", "for instance latency_ms=8")

    def __reduce__(self) -> tuple[type[Budget], tuple[dict[str, float], dict[str, float]]]:
        return Budget, (dict(self.limits), dict(self.fractions))

    @classmethod
    def parse(cls, text: str | Iterable[str] | Mapping[str, float | str] | Budget) -> Budget:
        """Read ``"latency_ms=8"``, several such, or a mapping.

        Bounds are separated by commas. A suffix ``k``, ``m`` or ``g`` multiplies keys that end in
        ``_bytes`` by powers of 1024 and all others by powers of 1000; ``%`` means of the original.

        Raises:
            BadInput: An unknown key, a value that is no positive number, or a key given twice.
        """
        if isinstance(text, Budget):
            return text
        if isinstance(text, Mapping):
            pairs = [(str(key), str(value)) for key, value in text.items()]
        else:
            parts = [text] if isinstance(text, str) else list(text)
            pairs = [_pair(item) for part in parts for item in part.split(",") if item.strip()]
        limits: dict[str, float] = {}
        fractions: dict[str, float] = {}
        for key, value in pairs:
            if key in limits or key in fractions:
                raise BadInput(f"the budget bounds {key} twice")
            amount, relative = _amount(_known(key), value)
            (fractions if relative else limits)[key] = amount
        return cls(limits, fractions)

    @property
    def resolved(self) -> bool:
        """Whether every bound is absolute."""
        return not self.fractions

    @property
    def keys(self) -> tuple[str, ...]:
        """The bounded keys, sorted."""
        return tuple(sorted({*self.limits, *self.fractions}))

    def resolve(self, original: Cost) -> Budget:
        """Return a budget whose percentages are taken of ``original``.

        Raises:
            BadInput: The cost lacks a bounded key.
        """
        self._require(original)
        limits = dict(self.limits)
        limits.update({key: f * original[key] for key, f in self.fractions.items()})
        return Budget(limits)

    def met(self, cost: Cost) -> bool:
        """Return whether ``cost`` is within every bound; bounds are inclusive.

        Raises:
            BadInput: A percentage is unresolved, or the cost lacks a bounded key.
        """
        return not self.excess(cost)

    def excess(self, cost: Cost) -> dict[str, float]:
        """Return ``cost / limit`` for every bound that is exceeded; empty where all are met.

        Raises:
            BadInput: A percentage is unresolved, or the cost lacks a bounded key.
        """
        if not self.resolved:
            raise BadInput(
                f"the budget for {', '.join(self.fractions)} is still a percentage",
                "resolve it against the original's cost first",
            )
        self._require(cost)
        return {key: cost[key] / top for key, top in self.limits.items() if cost[key] > top}

    def _require(self, cost: Cost) -> None:
        absent = [key for key in self.keys if key not in cost]
        if absent:
            raise BadInput(
                f"the budget bounds {', '.join(absent)}, which this target does not report",
                f"it reports {', '.join(sorted(cost.values)) or 'nothing'}",
            )

    def to_json(self) -> dict[str, dict[str, float]]:
        """Return a JSON-able form; :meth:`from_json` restores it."""
        return {"limits": dict(self.limits), "fractions": dict(self.fractions)}

    @classmethod
    def from_json(cls, data: Mapping[str, Mapping[str, float]]) -> Budget:
        """Restore a ``Budget`` from :meth:`to_json`."""
        return cls(dict(data["limits"]), dict(data["fractions"]))

    def __str__(self) -> str:
        parts = [f"{key}={value:g}" for key, value in sorted(self.limits.items())]
        return ",".join(parts + [f"{k}={100 * v:g}%" for k, v in sorted(self.fractions.items())])


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise BadInput(f"cannot read the budget {text.strip()!r}", "write it as latency_ms=8")
    return key.strip(), value.strip()


def _known(key: str) -> str:
    if key not in COST_KEYS:
        near = difflib.get_close_matches(key, COST_KEYS, n=3, cutoff=0.5)
        near += [k for k in COST_KEYS if key and k.startswith(key) and k not in near]
        hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(COST_KEYS)}"
        raise BadInput(f"unknown budget key {key!r}", hint)
    return key


def _positive(key: str, value: float) -> float:
    if not math.isfinite(value) or value <= 0:
        raise BadInput(f"the budget {key}={value} is not a positive number")
    return float(value)


def _amount(key: str, text: str) -> tuple[float, bool]:
    """Return the amount and whether it is a fraction of the original."""
    match = _NUMBER.match(text)
    if match is None:
        raise BadInput(f"cannot read the budget {key}={text!r}", f"for instance {key}=8")
    number, suffix = float(match[1]), match[2].lower()
    if suffix == "%":
        return _positive(key, number) / 100, True
    if suffix not in _POWERS:
        raise BadInput(
            f"unknown suffix {match[2]!r} in the budget {key}={text}",
            f"the unit is in the key; use no suffix, k, m, g or %, for instance {key}=8",
        )
    base = 1024 if key.endswith("_bytes") else 1000
    return _positive(key, number) * base ** _POWERS[suffix], False
