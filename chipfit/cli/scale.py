# SPDX-License-Identifier: Apache-2.0
"""The ``scale`` command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from chipfit.cli.console import Terminal
from chipfit.cli.look import input_option, json_option, target_option

if TYPE_CHECKING:
    from chipfit.flow.scale import ScaledNetwork


@click.command("scale")
@click.argument("net")
@target_option
@click.option("--mass", type=float, help="NN-Mass to have at least.")
@click.option("--mass-of", help="Network whose NN-Mass to have at least; default: NET itself.")
@click.option("--budget", help="Upper bound, for instance latency_ms=50%; maximises NN-Mass.")
@click.option("--non-linear-units", "units", type=float, default=1.0, show_default=True,
              help="Share of the non-linear units to keep at least.")  # fmt: skip
@click.option("--rule", type=click.Choice(["search", "uniform"]), default="search",
              show_default=True, help="Every stage, or the paper's two factors.")  # fmt: skip
@click.option("--width-floor", type=float, default=2 / 3, help="Least width, of the stage's own.")
@click.option("--width-cap", type=float, default=1.5, show_default=True)
@click.option("--depth-floor", type=float, default=0.5, show_default=True)
@click.option("--depth-cap", type=float, default=2.5, show_default=True)
@click.option(
    "--step", type=int, help="Widths are multiples of it; default: what suits the target."
)
@click.option("--finalists", type=int, default=3, show_default=True,
              help="Networks costed as wholes for each mass; 0: predict only.")  # fmt: skip
@click.option("--one", is_flag=True, help="The asked mass or budget alone, no family around it.")
@input_option
@click.option("--table", type=click.Path(path_type=Path), help="Cost table; default: the user's.")
@json_option
def scale_command(
    net: str, target: str, mass: float | None, mass_of: str | None, budget: str | None,
    units: float, rule: str, width_floor: float, width_cap: float, depth_floor: float,
    depth_cap: float, step: int | None, finalists: int, one: bool,
    shape: tuple[int, ...] | None, table: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Scale the stages of NET to a target at equal NN-Mass, without data and training."""
    from chipfit.flow.scale import scale

    terminal = Terminal(as_json)
    bounds: dict[str, float] = {
        "width_floor": width_floor, "width_cap": width_cap, "depth_floor": depth_floor,
        "depth_cap": depth_cap, **({"step": step} if step else {}),
    }  # fmt: skip
    found = scale(
        net, target, mass=mass, mass_of=mass_of, budget=budget, non_linear_units_share=units,
        bounds=bounds, rule=rule, family=not one, finalists=finalists, input_shape=shape,
        table=table, progress=terminal.progress,
    )  # fmt: skip
    if as_json:
        terminal.document(found.to_json())
        return
    rows = [_row(member, i) for i, member in enumerate(found.family)]
    columns = [k for k in rows[0] if any(row[k] is not None for row in rows)]
    terminal.table(
        rows, columns, f"{found.network} on {found.fingerprint}: {found.goal}", dense=True
    )
    for row, member in zip(rows[1:], found.family[1:], strict=True):
        terminal.say(f"{row['network']}: {member.build}")


def _row(member: ScaledNetwork, number: int) -> dict[str, object]:
    figures, cost = member.predicted, member.cost
    return {
        "network": f"at {member.share:g}" if number else "original",
        "widths": "-".join(map(str, member.widths)), "depths": "-".join(map(str, member.depths)),
        "params M": figures["params"] / 1e6, "MMACs": figures["macs"] / 1e6,
        "NN-Mass": round(member.nn_mass), "units M": member.non_linear_units / 1e6,
        "predicted ms": figures.get("latency_ms"), "ms": cost.get("latency_ms"),
        "gain": member.gain,
    }  # fmt: skip
