# SPDX-License-Identifier: Apache-2.0
"""The ``fit`` command."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from chipfit.cli.console import Terminal
from chipfit.cli.look import input_option, json_option, target_option
from chipfit.errors import BadInput


def _options(pairs: tuple[str, ...]) -> dict[str, Any]:
    options = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise BadInput(f"cannot read the option {pair!r}", "write --option steps=8")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


@click.command("fit")
@click.argument("net")
@target_option
@click.option("--budget", "budgets", multiple=True, required=True,
              help="Upper bound: latency_ms=3, latency_ms=50%; may be repeated.")  # fmt: skip
@click.option("--data", required=True, help="A name from 'chipfit data', or a Python file.")
@click.option("--method", default="auto", show_default=True)
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE",
              help="An option of the method; may be repeated.")  # fmt: skip
@click.option("--run", required=True, type=click.Path(path_type=Path), help="Run directory.")
@click.option("--epochs", type=float, help="Epochs of the original's training; 0: do not train.")
@click.option("--recovery-epochs", type=float, default=2.0, show_default=True,
              help="Epochs of each member's long-term fine-tune.")  # fmt: skip
@click.option("--members", type=int, default=7, show_default=True, help="Networks to keep.")
@click.option("--weights", help="Safetensors file to start from, or imagenet.")
@click.option("--keep", multiple=True, help="Prefix of layers whose widths stay.")
@input_option
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--workers", type=int, help="Worker processes; default: one a core.")
@click.option("--table", type=click.Path(path_type=Path), help="Cost table; default: the user's.")
@json_option
def fit_command(
    net: str, target: str, budgets: tuple[str, ...], data: str, method: str,
    options: tuple[str, ...], run: Path, shape: tuple[int, ...] | None, as_json: bool,
    keep: tuple[str, ...], **settings: Any,
) -> None:  # fmt: skip
    """Fit NET to a target within a budget; the same command continues an interrupted run.

    NET is a name from 'chipfit nets', timm:NAME, or module_or_file.py:factory.
    """
    from chipfit.flow.fit import fit
    from chipfit.report.table import family_table
    from chipfit.report.write import write_report

    terminal = Terminal(as_json)
    result = fit(
        net, target, ",".join(budgets), data, run=run, progress=terminal.progress, method=method,
        method_options=_options(options), input_shape=shape, keep=keep,
        command=shlex.join(["chipfit", *sys.argv[1:]]), **settings,
    )  # fmt: skip
    report = write_report(run)
    if as_json:
        terminal.document({**result.to_json(), "report": str(report)})
        return
    terminal.out.print(family_table(run, format="rich"), soft_wrap=True)
    terminal.out.print(f"budget met; report: {report}")
