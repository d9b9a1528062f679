# SPDX-License-Identifier: Apache-2.0
"""Commands that only look: lists, ``profile`` and ``verify``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chipfit.cli.console import Terminal
from chipfit.errors import BadInput
from chipfit.flow.listing import LISTINGS

if TYPE_CHECKING:
    from chipfit.flow.network import InputShape
    from chipfit.flow.verify import Verification

#: Heads of columns where a table of many columns has to be read.
_SHORT = {"latency_ms": "ms", "weight_bytes": "bytes"}

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
target_option = click.option("--target", required=True, help="A name from 'chipfit targets'.")


def input_shape(_: click.Context, __: click.Parameter, text: str | None) -> InputShape | None:
    """Read ``1,3,224,224``, or the shapes of several inputs as ``1,3,224,224;1,10``."""
    if text is None:
        return None
    shapes = tuple(_shape(part) for part in text.split(";"))
    return shapes if len(shapes) > 1 else shapes[0]


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError as error:
        raise BadInput(
            f"cannot read the input shape {text!r}", "for instance 1,3,224,224"
        ) from error
    if len(shape) < 2 or min(shape) < 1 or shape[0] != 1:
        raise BadInput(
            f"input shape {text!r} is not that of one image or one sequence (1,C,H,W or 1,L,C)",
            "for instance 1,3,224,224",
        )
    return shape


input_option = click.option(
    "--input", "shape", callback=input_shape,
    help="Input shape, for instance 1,3,224,224; of several inputs '1,3,32,32;1,10'.",
)  # fmt: skip


def placement(layers: Sequence[Any]) -> str:
    """Return how many layers run where and in which precision, as one line."""
    placed = Counter((layer.runs_on, layer.precision) for layer in layers)
    parts = []
    for (runs_on, precision), count in placed.most_common():
        known = [f"on the {runs_on}"] * bool(runs_on) + [f"in {precision}"] * bool(precision)
        parts.append(f"{count} {' '.join(known) or 'of unknown placement'}")
    return f"layers: {', '.join(parts)}"


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
    net: str, target: str, shape: InputShape | None, predict: bool, table: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Cost of NET on a target, layer by layer."""
    from chipfit.flow.profile import profile

    terminal = Terminal(as_json)
    found = profile(
        net, target, shape, predict=predict, table=table, noise=True, progress=terminal.progress
    )
    if as_json:
        terminal.document(found.to_json())
        return
    placed = Counter((layer.runs_on, layer.precision) for layer in found.cost.layers)
    rows = [
        {"layer": x.name, "kind": x.kind,
         **({"on": x.runs_on or None, "in": x.precision or None} if len(placed) > 1 else {}),
         "share %": None if share is None else round(100 * share, 1),
         **{_SHORT.get(key, key): value for key, value in x.cost.values.items()}}
        for x, share in zip(found.cost.layers, found.shares(), strict=True)
    ]  # fmt: skip
    columns = [key for key in dict.fromkeys(key for row in rows for key in row)
               if any(row.get(key) is not None for row in rows)]  # fmt: skip
    total = found.cost.total
    terminal.table(rows, columns, f"{found.network} on {found.fingerprint}", dense=True)
    if any(layer.runs_on or layer.precision for layer in found.cost.layers):
        terminal.say(placement(found.cost.layers))
    for key, value in total.values.items():
        terminal.say(f"{key:16} {value:,.6g}{_spread(total, key)}  ({total.provenance})")
    if found.noise is not None:
        terminal.say(f"{'A/A noise':16} {found.noise:.2%}: networks closer than this cannot be"
                     " told apart")  # fmt: skip


def _spread(cost: Any, key: str) -> str:
    if key not in cost.spread:
        return ""
    relative = f" ({cost.spread[key] / cost[key]:.1%})" if cost[key] else ""
    return f" ± {cost.spread[key]:.4g}{relative}"


@click.command("verify")
@click.argument("file", type=click.Path(path_type=Path))
@target_option
@click.option(
    "--against",
    metavar="RUN:ID|NET[@WEIGHTS]",
    help="The member of a run it was exported from, or a network and its safetensors.",
)
@click.option("--strict", is_flag=True, help="Fail where operators do not run on the accelerator.")
@click.option("--table", type=click.Path(path_type=Path), help="Cost table; default: the user's.")
@json_option
def verify_command(
    file: Path, target: str, against: str | None, strict: bool, table: Path | None, as_json: bool
) -> None:  # fmt: skip
    """Re-cost FILE on a target and compare it with its network, layer by layer."""
    from chipfit.flow.verify import verify

    terminal = Terminal(as_json)
    found = verify(file, target, against, strict=strict, table=table)
    if found.fallbacks:
        terminal.warn(
            f"{len(found.fallbacks)} operator(s) of {file.name} do not run on the accelerator, at"
            " unknown cost: the file's latency is unknown"
        )
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
    _layers(terminal, found)
    if found.max_abs_error is not None:
        terminal.out.print(
            f"against {found.reference}: largest error {found.max_abs_error:.3g}, "
            f"same class on {found.top1_agreement:.2%}"
        )
    for refusal in found.fallbacks:
        terminal.say(f"not on the accelerator: {refusal.name} ({refusal.kind}): {refusal.reason}")
    for note in found.notes:
        terminal.say(note)


def _layers(terminal: Terminal, found: Verification) -> None:
    """Print predicted against real, and which layers run where."""
    if found.comparison:
        rows = [
            {"layer": item.name, found.cost.total.provenance: item.real_ms,
             "predicted": item.predicted_ms,
             "error %": None if item.error is None else round(100 * item.error, 1)}
            for item in found.comparison
        ]  # fmt: skip
        terminal.table(rows, list(rows[0]), title="layers, ms")
    terminal.say(placement(found.cost.layers))
    if found.conversions:
        terminal.say(f"conversions of layout or precision take {found.conversions:.1%}")
