# SPDX-License-Identifier: Apache-2.0
"""The command ``inspect``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chipfit.cli.console import Terminal
from chipfit.cli.look import input_option, json_option, placement
from chipfit.errors import BadInput

if TYPE_CHECKING:
    from chipfit.flow.inspect import Inspection
    from chipfit.flow.network import InputShape

#: Rows of the tables that a person reads; programs get all of them.
_LAYERS, _WIDTHS, _REASONS = 15, 12, 8


def _plot_path(_: click.Context, __: click.Parameter, path: Path | None) -> Path | None:
    from chipfit.report.curves import FORMATS

    if path is not None and path.suffix.lstrip(".").lower() not in FORMATS:
        raise BadInput(f"cannot plot to {path}", f"end its name in .{', .'.join(FORMATS)}")
    return path


@click.command("inspect")
@click.argument("net")
@input_option
@click.option("--target", help="A name from 'chipfit targets'.")
@click.option("--plot", type=click.Path(path_type=Path), callback=_plot_path,
              help="Draw cost against channel count to FILE.png, .svg or .html.")  # fmt: skip
@click.option("--seconds", type=float, default=60.0, show_default=True,
              help="Time for all of it; the dearest layers come first.")  # fmt: skip
@click.option("--table", type=click.Path(path_type=Path), help="Cost table; default: the user's.")
@json_option
def inspect_command(
    net: str, shape: InputShape | None, target: str | None, plot: Path | None,
    seconds: float, table: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """What can be changed in NET, what is frozen and why, and what a target dislikes; no data.

    NET is a name from 'chipfit nets', timm:NAME, or module_or_file.py:factory.
    """
    from chipfit.flow.inspect import inspect
    from chipfit.report.curves import write_curves

    if plot is not None and target is None:
        raise BadInput("--plot draws latencies, so it needs --target", "see chipfit targets")
    terminal = Terminal(as_json)
    found = inspect(net, shape, target, seconds=seconds, table=table, progress=terminal.progress)
    document = found.to_json()
    if plot is not None and found.curves:
        write_curves(document["curves"], f"{found.network} on {found.target}", plot)
        document["plot"] = str(plot)
    elif plot is not None:
        terminal.warn(f"there is no curve to draw, so {plot} was not written")
    if as_json:
        terminal.document(document)
        return
    _show(terminal, found)
    if "plot" in document:
        terminal.say(f"drawn: {plot}")


def _show(terminal: Terminal, found: Inspection) -> None:
    shape = "x".join(map(str, found.input_shape))
    terminal.say(
        f"{found.network} at {shape}: {_count(found.macs)} MACs, {_count(found.params)} parameters"
    )
    if found.cost is not None:
        parts = [
            f"{key} {value:,.0f}" if value >= 1e3 else f"{key} {value:.5g}"
            for key, value in found.cost.values.items()
            if key not in ("macs", "params")
        ]
        terminal.say(f"on {found.target} ({found.cost.provenance}): {', '.join(parts)}")
    elif found.target:
        terminal.say(f"on {found.target}: the total is unknown, as {found.cost_unknown}")
    _show_groups(terminal, found)
    _show_refusals(terminal, found)
    _show_layers(terminal, found)
    _show_widths(terminal, found)
    for line in found.left_out:
        terminal.say(f"left out: {line}")
    terminal.say(f"{found.seconds:.0f} s")


def _count(number: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:,.4g} {letter}"
    return f"{number:g}"


def _show_groups(terminal: Terminal, found: Inspection) -> None:
    free = [group for group in found.groups if not group.frozen]
    terminal.say(f"{len(free)} of {len(found.groups)} channel groups can change their width")
    reasons = Counter(group.frozen for group in found.groups if group.frozen)
    for reason, count in reasons.most_common(_REASONS):
        terminal.say(f"  {count} frozen: {reason}")
    if len(reasons) > _REASONS:
        terminal.say(f"  and {len(reasons) - _REASONS} more reasons")


def _show_refusals(terminal: Terminal, found: Inspection) -> None:
    rows = {r.name: {"operator": r.name, "kind": r.kind, "reason": r.reason}
            for r in (*found.refusals, *found.unsupported)}  # fmt: skip
    if rows:
        title = f"operators that {found.target or 'chipfit'} cannot run"
        terminal.table(list(rows.values()), ["operator", "kind", "reason"], title, dense=True)


def _show_layers(terminal: Terminal, found: Inspection) -> None:
    rows = [_layer_row(layer) for layer in found.layers[:_LAYERS]]
    columns = [key for key in dict.fromkeys(key for row in rows for key in row)
               if any(row[key] not in (None, "") for row in rows)]  # fmt: skip
    rest = sum(layer.share for layer in found.layers[_LAYERS:])
    title = f"dearest layers; {len(found.layers) - len(rows)} more take {rest:.0%}"
    terminal.table(rows, columns, title if len(found.layers) > len(rows) else "layers", dense=True)
    if any(layer.runs_on or layer.precision for layer in found.layers):
        terminal.say(placement(found.layers))
    if found.roofline is not None:
        r = found.roofline
        line = (f"roofline ({r.provenance}): {r.macs_per_s / 1e9:,.4g} GMAC/s, "
                f"{r.memory} {r.bytes_per_s / 1e9:,.3g} GB/s")  # fmt: skip
        if r.activation_bytes_per_s is not None:
            line += f", activations in {r.activation_memory} {r.activation_bytes_per_s / 1e9:,.3g}"
            line += " GB/s"
        if any((layer.utilisation or 0) > 1 for layer in found.layers):
            line += "; above 100 %, weights were compressed or stayed in a cache"
        terminal.say(line)


def _layer_row(layer: Any) -> dict[str, Any]:
    used = layer.utilisation
    return {
        "layer": layer.name, "kind": layer.kind, "ms": layer.cost.get("latency_ms"),
        "share %": round(100 * layer.share, 1), "M MACs": round(layer.macs / 1e6, 2),
        "MACs/B": None if layer.macs_per_byte is None else round(layer.macs_per_byte, 1),
        "bound": {"arithmetic": "compute"}.get(layer.bound, layer.bound),
        "roof %": None if used is None else round(100 * used),
    }  # fmt: skip


def _show_widths(terminal: Terminal, found: Inspection) -> None:
    rows = []
    for item in found.misaligned[:_WIDTHS]:
        better = [f"{b['channels']}" + ("" if b["latency_ms_change"] is None else
                  f" ({b['latency_ms_change']:+.4g} ms)") for b in item["better"]]  # fmt: skip
        rows.append({"layer": item["name"], "channels": item["channels"], "why": item["reason"],
                     "better": "frozen" if item["frozen"] else ", ".join(better)})  # fmt: skip
    if rows:
        terminal.table(rows, ["layer", "channels", "why", "better"], "disliked widths: "
                       f"{len(rows)} of {len(found.misaligned)}", dense=True)  # fmt: skip
    rows = [_curve_row(curve) for curve in found.curves[:_WIDTHS]]
    if rows:
        terminal.table(rows, ["width of", "now", "ms now", "priced", "cliffs"],
                       f"cost against width, {len(rows)} of {len(found.curves)}; "
                       "ms of all layers that the width changes", dense=True)  # fmt: skip


def _curve_row(curve: Any) -> dict[str, Any]:
    steps = [f"{c.channels}→{c.to} {100 * (c.factor - 1):+.0f}%" for c in curve.cliffs]
    return {
        "width of": curve.layer, "now": curve.present, "ms now": curve.at(curve.present),
        "priced": f"{curve.channels[0]}..{curve.channels[-1]}",
        "cliffs": ", ".join(steps[:5]) + (f" and {len(steps) - 5} more" if len(steps) > 5 else "")
        or "none",
    }  # fmt: skip
