# SPDX-License-Identifier: Apache-2.0
"""``Quantity``: the label, the unit and the direction of every figure that a report shows.

``assets/format.js`` writes numbers by the same rules; a browser test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Stands for a figure that the run does not have.
UNKNOWN = "—"
NBSP = "\u00a0"


@dataclass(frozen=True)
class Quantity:
    """One kind of figure.

    Args:
        key: For instance ``"latency_ms"``.
        label: Full name.
        short: Name in a column head.
        kind: How it is written: ``percent``, ``count``, ``bytes`` or ``number``.
        unit: Written behind a ``number``.
        direction: ``"min"`` or ``"max"``: which way is better.
    """

    key: str
    label: str
    short: str
    kind: str
    unit: str = ""
    direction: str = "min"

    @property
    def inline(self) -> str:
        """The label inside a sentence; abbreviations stay as they are."""
        return self.label if self.label[1:2].isupper() else self.label[:1].lower() + self.label[1:]


_KNOWN = {
    q.key: q
    for q in (
        Quantity("int8_test_accuracy", "Test accuracy, int8 file", "int8", "percent", "", "max"),
        Quantity("test_accuracy", "Test accuracy, float", "float", "percent", "", "max"),
        Quantity("val_accuracy", "Validation accuracy", "val", "percent", "", "max"),
        Quantity("latency_ms", "Latency", "Latency", "number", "ms"),
        Quantity("cpu_latency_ms", "CPU latency", "CPU latency", "number", "ms"),
        Quantity("cycles", "Cycles", "Cycles", "count"),
        Quantity("macs", "MACs", "MACs", "count"),
        Quantity("params", "Parameters", "Params", "count"),
        Quantity("weight_bytes", "Weights", "Weights", "bytes"),
        Quantity("peak_sram_bytes", "Peak SRAM", "Peak SRAM", "bytes"),
        Quantity("flash_bytes", "Flash", "Flash", "bytes"),
        Quantity("energy_mj", "Energy", "Energy", "number", "mJ"),
    )
}
_SCALES = {
    "count": ((1e9, "G"), (1e6, "M"), (1e3, "k")),
    "bytes": ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")),
}
_SUFFIX_UNITS = {"_ms": "ms", "_mj": "mJ", "_db": "dB", "_s": "s"}
_LOWER_IS_BETTER = ("loss", "error", "mse", "mae", "perplexity", "lpips", "fid")


def quantity(key: str, *, metric: bool = False) -> Quantity:
    """Return the quantity of a key; one that is not well known is named after its key.

    Args:
        key: A metric key or a cost key.
        metric: Whether it is a metric: better when higher, but for losses and errors.
    """
    if key in _KNOWN:
        return _KNOWN[key]
    label = key.replace("_", " ")
    direction = "max" if metric and not key.endswith(_LOWER_IS_BETTER) else "min"
    if key.endswith("_bytes"):
        return Quantity(key, label.removesuffix(" bytes"), key, "bytes", "", direction)
    if key.endswith("accuracy"):
        return Quantity(key, label, label, "percent", "", direction)
    unit = next((u for suffix, u in _SUFFIX_UNITS.items() if key.endswith(suffix)), "")
    label = label.removesuffix(f" {unit.lower()}") if unit else label
    return Quantity(key, label[:1].upper() + label[1:], label, "number", unit, direction)


def scale_of(q: Quantity, size: float) -> tuple[float, str]:
    """Return the factor and the unit in which figures up to ``size`` are written."""
    if q.kind == "percent":
        return 0.01, "%"
    for factor, unit in _SCALES.get(q.kind, ()):
        if abs(size) >= factor:
            return factor, unit
    return 1.0, "B" if q.kind == "bytes" else q.unit


def plain(value: float) -> str:
    """Write a number with four significant digits and at most four decimals."""
    size = abs(value)
    decimals = sum(size < bound for bound in (1000, 100, 10, 1))
    return _signed(f"{value:.{decimals}f}")


def _signed(text: str) -> str:
    if text.startswith("-"):
        return "−" + text[1:] if text.strip("-0.") else text[1:]
    return text


def show(value: float | None, q: Quantity, spread: float | None = None) -> str:
    """Write a figure with its unit; ``None`` is a dash.

    >>> show(0.4104, quantity("latency_ms")).replace(NBSP, " ")
    '0.4104 ms'
    """
    if value is None:
        return UNKNOWN
    factor, unit = scale_of(q, value)
    if q.kind == "percent":
        text = _signed(f"{value / factor:.2f}")
    elif factor == 1 and (q.kind == "bytes" or (q.kind == "count" and value == int(value))):
        text = _signed(f"{value:.0f}")
    else:
        text = plain(value / factor)
    if spread is not None and q.kind == "number":
        text += f" ± {plain(spread)}"
    return text + (NBSP + unit if unit else "")


def change(value: float | None, reference: float | None, q: Quantity) -> str:
    """Write how a figure differs from a reference: points for percentages, else per cent."""
    if value is None or reference is None:
        return UNKNOWN
    if q.kind == "percent":
        return _plus(f"{100 * (value - reference):.2f}") + f"{NBSP}pt"
    if not reference:
        return UNKNOWN
    return _plus(f"{100 * (value / reference - 1):.1f}") + f"{NBSP}%"


def _plus(text: str) -> str:
    text = _signed(text)
    return text if text.startswith("−") or not text.strip("0.") else "+" + text
