# SPDX-License-Identifier: Apache-2.0
"""``chipfit``: the command line."""

from __future__ import annotations

import contextlib
import errno
import sys
from typing import NoReturn

import click

from chipfit import __version__, interrupts, ranks
from chipfit.cli.collapse import collapse_command
from chipfit.cli.compare import compare_command
from chipfit.cli.console import Terminal, only_documents
from chipfit.cli.explain import explain_command
from chipfit.cli.fit import fit_command
from chipfit.cli.inspect import inspect_command
from chipfit.cli.look import LIST_COMMANDS, profile_command, verify_command
from chipfit.cli.operators import operators_command
from chipfit.cli.scale import scale_command
from chipfit.cli.take import export_command, report_command
from chipfit.errors import BadInput, ChipfitError, Interrupted, StorageError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="chipfit")
def cli() -> None:
    """Fit any neural network to a chip, within a budget in the chip's own currency."""


for _command in (
    *LIST_COMMANDS, inspect_command, profile_command, compare_command, explain_command,
    collapse_command, scale_command, fit_command, report_command, export_command, verify_command,
    operators_command,
):  # fmt: skip
    cli.add_command(_command)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command; every failure ends in a message, a hint and an exit code of its kind."""
    ranks.follow()
    arguments = sys.argv[1:] if arguments is None else arguments
    terminal = Terminal(as_json="--json" in arguments)
    interrupts.watch()
    try:
        with only_documents() if terminal.as_json else contextlib.nullcontext():
            cli.main(arguments, standalone_mode=False)
        code = 0
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        hint = "chipfit --help tells what there is"
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f"{error.ctx.command_path} --help tells what it takes"
        code = _fail(terminal, BadInput(error.format_message(), hint))
    except (KeyboardInterrupt, click.Abort):
        code = _fail(
            terminal,
            Interrupted("stopped", "nothing is lost: the same command continues where it stopped"),
        )
    except ChipfitError as error:
        code = _fail(terminal, error)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        code = _fail(terminal, StorageError(
            f"the disk is full: {error}",
            "free some space and run the same command: it continues where it stopped",
        ))  # fmt: skip
    sys.exit(code)


def _fail(terminal: Terminal, error: ChipfitError) -> int:
    terminal.error(error)
    return error.exit_code


if __name__ == "__main__":
    main()
