# SPDX-License-Identifier: Apache-2.0
"""Commands that only look: lists, ``profile`` and ``verify``."""

from __future__ import annotations

from pathlib import Path

import click

from chipfit.cli.console import Terminal
from chipfit.errors import BadInput
from chipfit.flow.listing import LISTINGS

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
target_option = click.option("--target", required=True, help="A name from 'chipfit targets'.")


def input_shape(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Read ``1,3,224,224``."""
    if text is None:
        return None
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError as error:
        raise BadInput(
            f"cannot read the input shape {text!r}", "for instance 1,3,224,224"
        ) from error
    if len(shape) != 4 or min(shape) < 1 or shape[0] != 1:
        raise BadInput(f"input shape {text!r} is not 1,C,H,W", "for instance 1,3,224,224")
    return shape


input_option = click.option(
    "--input", "shape", callback=input_shape, help="Input shape, for instance 1,3,224,224."
)


def _list_command(name: str) -> click.Command:
    @click.command(name, help=f"List the {name} there are.")
    @json_option
    def command(as_json: bool) -> None:
        terminal, rows = Terminal(as_json), LISTINGS[name]()
        if as_json:
            terminal.document(rows)
        else:
            columns = ["name", "summary"] + (["source"] if name == "methods" else [])
            terminal.table(rows, columns)

    return command


LIST_COMMANDS = [_list_command(name) for name in LISTINGS]


@click.command("profile")
@click.argument("net")
@target_option
@input_option
@click.option("--predict", is_flag=True, help="Answer from the cost table alone.")
@click.option("--table", type=click.Path(path_type=Path), help="Cost table; default: the user's.")
@json_option
def profile_command(
    net: str, target: str, shape: tuple[int, ...] | None, predict: bool, table: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Cost of NET on a target, layer by layer."""
    from chipfit.flow.profile import profile

    terminal = Terminal(as_json)
    found = profile(net, target, shape, predict=predict, table=table)
    if as_json:
        terminal.document(found.to_json())
        return
    rows = [{"layer": x.name, "kind": x.kind, **x.cost.values} for x in found.cost.layers]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    total = found.cost.total
    terminal.table(rows, columns, title=f"{found.network} on {found.fingerprint}")
    for key, value in total.values.items():
        spread = f" ± {total.spread[key]:.4g}" if key in total.spread else ""
        terminal.out.print(f"{key:16} {value:,.6g}{spread}  ({total.provenance})")


@click.command("verify")
@click.argument("file", type=click.Path(path_type=Path))
@target_option
@click.option("--against", metavar="RUN:ID", help="The member of a run it was exported from.")
@json_option
def verify_command(file: Path, target: str, against: str | None, as_json: bool) -> None:
    """Re-cost FILE on a target and compare it with its network."""
    from chipfit.flow.verify import verify

    terminal = Terminal(as_json)
    found = verify(file, target, against)
    if as_json:
        terminal.document(found.to_json())
        return
    errors = found.errors()
    rows = [
        {"cost": key, found.cost.total.provenance: value, "predicted": found.predicted.get(key),
         "error %": 100 * errors[key] if key in errors else None}
        for key, value in found.cost.total.values.items()
    ]  # fmt: skip
    terminal.table(rows, ["cost", found.cost.total.provenance, "predicted", "error %"],
                   title=f"{file.name} on {found.target}")  # fmt: skip
    if found.max_abs_error is not None:
        terminal.out.print(
            f"against {found.reference}: largest error {found.max_abs_error:.3g}, "
            f"same class on {found.top1_agreement:.2%}"
        )
    for name in found.fallbacks:
        terminal.out.print(f"not on the accelerator: {name}")
