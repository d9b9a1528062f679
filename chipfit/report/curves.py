# SPDX-License-Identifier: Apache-2.0
"""Curves of cost against channel count as small multiples, drawn by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from chipfit.errors import BadInput, MissingBackend
from chipfit.files import write_bytes

_BLUE, _ORANGE, _INK, _GREY, _LINE = "#0b62b8", "#c2500a", "#1a2029", "#4d5663", "#dfe3e9"
FORMATS = ("png", "svg", "html")
#: Panels of a picture, the first curves given.
PANELS = 12
_COLUMNS = 4


def curves_picture(
    curves: Sequence[Mapping[str, Any]], title: str, kind: str = "png", *, panels: int = PANELS,
    dpi: int = 100,
) -> bytes:  # fmt: skip
    """Return a picture with one panel per layer: its cliffs and its present width are marked.

    Args:
        curves: As in ``chipfit inspect --json``: ``layer``, ``present``, ``channels``,
            ``latency_ms``, ``spread_ms`` and ``cliffs``.
        title: Of the picture.
        kind: One of :data:`FORMATS`; ``html`` is a page that holds the picture.
        panels: Curves to draw, from the first.
        dpi: Dots per inch of a PNG.

    Raises:
        BadInput: There is no curve, or ``kind`` is none of the formats.
        MissingBackend: matplotlib is not installed.
    """
    if kind not in FORMATS:
        raise BadInput(f"a plot cannot be written as {kind!r}", f"known: {', '.join(FORMATS)}")
    if not curves:
        raise BadInput("there is no curve to draw", "give a target that knows latency, and time")
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingBackend("a plot needs matplotlib", "pip install 'chipfit[report]'") from error
    shown = curves[:panels]
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    width, height = max(3.0 * columns, 5.0), 2.1 * rows + 0.9
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for i, axes in enumerate(grid.flat):
        if i >= len(shown):
            axes.set_axis_off()
            continue
        _panel(axes, shown[i])
        if i % columns == 0:
            axes.set_ylabel("latency (ms)", color=_GREY, fontsize=8)
        if i + columns >= len(shown):
            axes.set_xlabel("channels", color=_GREY, fontsize=8)
    more = f", {len(shown)} of {len(curves)} layers" if len(shown) < len(curves) else ""
    figure.suptitle(
        _plain_text(f"{title}{more}\n")
        + "dotted: present width; orange: one more channel costs over 5 % more, or fewer cost more",
        x=0.01, ha="left", fontsize=9, color=_INK,
    )  # fmt: skip
    picture = io.BytesIO()
    # A fixed salt and no date keep two pictures of the same curves equal, byte for byte.
    with matplotlib.rc_context({"svg.hashsalt": "chipfit"}):
        if kind == "png":
            figure.savefig(picture, format="png", dpi=dpi, metadata={"Software": "chipfit"})
        else:
            figure.savefig(picture, format="svg", metadata={"Date": None, "Creator": "chipfit"})
    data = picture.getvalue()
    return _page(title, data) if kind == "html" else data


def write_curves(curves: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Write the picture to ``path``, in the format that its name ends with.

    Raises:
        BadInput: The name ends with no known format, or there is no curve.
        MissingBackend: matplotlib is not installed.
    """
    write_bytes(path, curves_picture(curves, title, path.suffix.lstrip(".").lower()))


def _panel(axes: Any, curve: Mapping[str, Any]) -> None:
    channels, costs = curve["channels"], curve["latency_ms"]
    spreads = curve.get("spread_ms") or [0.0] * len(channels)
    if any(spreads):
        low = [cost - spread for cost, spread in zip(costs, spreads, strict=True)]
        high = [cost + spread for cost, spread in zip(costs, spreads, strict=True)]
        axes.fill_between(channels, low, high, color=_BLUE, alpha=0.15, linewidth=0)
    axes.plot(channels, costs, color=_BLUE, linewidth=0, marker="o", markersize=2.5, zorder=3)
    for i in range(len(channels) - 1):
        # What lies between two widths that were not neighbours was not priced.
        gap = channels[i + 1] > channels[i] + 1
        axes.plot(
            channels[i : i + 2], costs[i : i + 2], color=_BLUE, linewidth=0.8 if gap else 1.4,
            alpha=0.45 if gap else 1.0, linestyle="--" if gap else "-", zorder=2,
        )  # fmt: skip
    place = dict(zip(channels, costs, strict=True))
    for cliff in curve["cliffs"]:
        ends = [cliff["channels"], cliff["to"]]
        axes.plot(ends, [place[end] for end in ends], color=_ORANGE, linewidth=2.6, zorder=4)
    steep = sorted(curve["cliffs"], key=lambda cliff: -abs(cliff["factor"] - 1))[:3]
    for cliff in steep:
        left = cliff["to"] < (channels[0] + channels[-1]) / 2
        axes.annotate(
            f"{cliff['channels']}→{cliff['to']} {100 * (cliff['factor'] - 1):+.0f} %",
            (cliff["to"], place[cliff["to"]]), xytext=(4, -7) if left else (-3, 4),
            textcoords="offset points", ha="left" if left else "right", color=_ORANGE, fontsize=6.5,
        )  # fmt: skip
    axes.axvline(curve["present"], color=_GREY, linestyle=":", linewidth=1.1, zorder=1)
    axes.set_title(
        _plain_text(f"{curve['layer']} ({curve['present']})"), loc="left", fontsize=8, color=_INK
    )
    axes.margins(x=0.04, y=0.2)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(color=_LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, colors=_GREY, labelsize=7)


def _page(title: str, svg: bytes) -> bytes:
    picture = svg[svg.index(b"<svg") :].decode()
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        f"<title>{escape(title)}</title>\n"
        "<meta name=viewport content='width=device-width'>\n"
        "<style>body{margin:1rem;background:#fff}svg{max-width:100%;height:auto}</style>\n"
        f"{picture}\n</html>\n"
    ).encode()


def _plain_text(text: str) -> str:
    """Keep matplotlib from reading a name as a formula."""
    return text.replace("$", r"\$")
