# SPDX-License-Identifier: Apache-2.0
"""The ``explain`` command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from chipfit.cli.console import Terminal
from chipfit.cli.look import input_option, json_option, target_option

if TYPE_CHECKING:
    from chipfit.flow.network import InputShape


@click.command("explain")
@click.argument("net")
@target_option
@input_option
@click.option("--all", "everything", is_flag=True, help="List all layers, not the dearest twenty.")
@json_option
def explain_command(
    net: str, target: str, shape: InputShape | None, everything: bool, as_json: bool
) -> None:
    """Why NET is, or is not, faster in int8 on a target."""
    from chipfit.flow.explain import explain

    terminal = Terminal(as_json)
    found = explain(net, target, shape)
    if as_json:
        terminal.document(found.to_json())
        return
    layers = list(found.layers)
    if not everything:
        dearest = sorted(layers, key=lambda x: -x.float_share)[:20]
        layers = [x for x in layers if x in dearest or (x.reason and x.int8_share > 0.005)]
    rows = [
        {"layer": x.name, "kind": x.kind, "runs in": x.precision or None,
         "float32 %": round(100 * x.float_share, 1), "int8 %": round(100 * x.int8_share, 1),
         "speed-up": round(x.speed_up, 2) if x.speed_up else None, "why float": x.reason or None}
        for x in layers
    ]  # fmt: skip
    columns = ["layer", "kind", "runs in", "float32 %", "int8 %", "speed-up"]
    if any(row["why float"] for row in rows):
        columns.append("why float")
    if rows:
        time = f", float32 {found.float_ms:.3g} ms" if found.float_ms is not None else ""
        terminal.table(rows, columns, title=f"{found.network} on {found.target}{time}")
        if len(rows) < len(found.layers):
            terminal.out.print(f"{len(rows)} of {len(found.layers)} layers; --all lists the rest")
    else:
        terminal.out.print(f"{found.network} on {found.target}")
    for line in found.verdict:
        terminal.out.print(f"• {line}", highlight=False, soft_wrap=True, markup=False)
