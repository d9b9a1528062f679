# SPDX-License-Identifier: Apache-2.0
"""The Pareto front as a PNG picture, drawn by matplotlib."""

from __future__ import annotations

import io

from chipfit.errors import MissingBackend
from chipfit.report.data import Member, RunData
from chipfit.report.front import best, default_axes, front
from chipfit.report.quantity import quantity, scale_of, show

_BLUE, _GREY, _ORANGE, _INK, _LINE = "#0b62b8", "#9aa3af", "#c2500a", "#1a2029", "#dfe3e9"


def front_png(run: RunData, *, dpi: int = 160) -> bytes | None:
    """Return the front of a run as PNG; ``None`` where no member can be drawn yet.

    The axes are those that ``report.html`` opens with.

    Args:
        run: What :func:`chipfit.report.read.read_run` returns.
        dpi: Dots per inch of a picture of 7.5 by 4.5 inches.

    Raises:
        MissingBackend: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter
    except ImportError as error:
        raise MissingBackend("a PNG needs matplotlib", "pip install 'chipfit[report]'") from error
    axes = default_axes(run)
    if axes is None:
        return None
    metric, cost = axes
    members = [m for m in run.members if metric in m.values and cost in m.values]
    if not members:
        return None
    qm, qc = quantity(metric, metric=True), quantity(cost)
    on_front = sorted(front(run, metric, cost), key=lambda m: m.values[cost])
    others = [m for m in members if m not in on_front]
    chosen = best(run)

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    plot = figure.add_subplot()

    def xy(items: list[Member]) -> tuple[list[float], list[float]]:
        return [m.values[cost] for m in items], [m.values[metric] for m in items]

    plot.step(*xy(on_front), where="post", color=_BLUE, linewidth=1.5, alpha=0.55, zorder=2)
    plot.scatter(*xy([m for m in on_front if m is not run.original]), s=46, color=_BLUE, zorder=3)
    hollow = [m for m in others if m is not run.original]
    plot.scatter(*xy(hollow), s=34, facecolor="white", edgecolor=_GREY, linewidth=1.5, zorder=3)
    if run.original in members and run.original is not None:
        plot.scatter(*xy([run.original]), s=64, marker="D", color=_INK, zorder=4)
    if chosen is not None and chosen in members:
        plot.scatter(
            *xy([chosen]), s=150, facecolor="none", edgecolor=_BLUE, linewidth=1.5, zorder=4
        )
    for member in members:
        if member is run.original or member is chosen:
            right = member.values[cost] > sum(plot.get_xlim()) / 2
            plot.annotate(
                _plain_text(member.id),
                (member.values[cost], member.values[metric]),
                xytext=(-10 if right else 10, -14),
                textcoords="offset points",
                ha="right" if right else "left",
                color=_INK,
                fontsize=9,
            )
    bound = run.budget.get(cost)
    if bound is not None:
        left = bound < sum(plot.get_xlim()) / 2
        plot.axvline(bound, color=_ORANGE, linestyle=(0, (4, 3)), linewidth=1.3, zorder=1)
        plot.annotate(
            f"budget {show(bound, qc)}",
            (bound, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(5 if left else -5, -12),
            textcoords="offset points",
            ha="left" if left else "right",
            color=_ORANGE,
            fontsize=9,
        )
    plot.margins(x=0.07, y=0.12)
    x_factor, x_unit = scale_of(qc, max(m.values[cost] for m in members))
    y_factor, y_unit = scale_of(qm, max(m.values[metric] for m in members))
    plot.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / x_factor:g}"))
    plot.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / y_factor:g}"))
    device = f" on {_plain_text(run.target)}" if cost in ("latency_ms", "cycles") else ""
    plot.set_xlabel(f"{qc.label}{device}" + (f" ({x_unit})" if x_unit else ""), color=_INK)
    plot.set_ylabel(qm.label + (f" ({y_unit})" if y_unit else ""), color=_INK)
    plot.set_title(
        _plain_text(f"{run.network} → {run.target}"), loc="left", fontsize=12, color=_INK, pad=12
    )
    plot.grid(color=_LINE, linewidth=0.8)
    plot.set_axisbelow(True)
    for side in ("top", "right", "left"):
        plot.spines[side].set_visible(False)
    plot.tick_params(length=0, colors="#4d5663", labelsize=9)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=dpi, metadata={"Software": "chipfit"})
    return picture.getvalue()


def _plain_text(text: str) -> str:
    """Keep matplotlib from reading a name as a formula."""
    return text.replace("$", r"\$")
