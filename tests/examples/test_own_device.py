# SPDX-License-Identifier: Apache-2.0
"""The two examples of a device of one's own, through the command line and Python."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import chipfit as cf
from chipfit.cli.main import cli
from chipfit.targets import create

ROOT = Path(__file__).parents[2]
FILE = ROOT / "examples" / "own_device.py"
TABLE = ROOT / "examples" / "own_device.csv"
TARGETS = {"python": f"{FILE}:my_board", "csv": f"measurements:file={TABLE},name=myboard"}
NET, SHAPE = "tiny_mobilenet_v2", (1, 3, 32, 32)


def chipfit(*arguments):
    done = CliRunner().invoke(cli, arguments)
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_the_python_example_is_about_thirty_lines():
    code = [line for line in FILE.read_text().splitlines() if line.strip()]
    assert len(code) <= 40


def test_the_command_line_takes_a_device_in_python():
    out = chipfit("profile", NET, "--input", "1,3,32,32", "--json", "--target",
                  f"{FILE}:my_board:clock_mhz=100")  # fmt: skip
    fast = cf.profile(NET, TARGETS["python"], SHAPE).cost.total["latency_ms"]
    found = json.loads(out)
    assert found["cost"]["latency_ms"] == pytest.approx(2 * fast)
    assert found["provenance"] == "modelled"


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_predictions_are_the_sum(target, tmp_path):
    whole = cf.profile(NET, target, SHAPE).cost.total
    guess = cf.profile(NET, target, SHAPE, predict=True, table=tmp_path / "t.sqlite").cost.total
    assert guess["latency_ms"] == pytest.approx(whole["latency_ms"])
    assert guess.provenance == "predicted"


def test_the_table_agrees_with_the_device_it_was_taken_from():
    measured, real = (cf.profile(NET, t, SHAPE).cost.total for t in reversed(TARGETS.values()))
    assert measured["latency_ms"] == pytest.approx(real["latency_ms"], rel=0.02)
    # An image size that no row has: everything is interpolated.
    target = create(TARGETS["csv"])
    guess, real = (cf.profile(NET, t, (1, 3, 24, 24)).cost.total["latency_ms"]
                   for t in (target, TARGETS["python"]))  # fmt: skip
    assert guess == pytest.approx(real, rel=0.05)
    assert max(fit.error for fit in target.fits.values()) < 0.5


def test_the_form_is_written(tmp_path):
    form = tmp_path / "form.csv"
    out = chipfit("operators", NET, "--input", "1,3,32,32", "-o", str(form), "--json")
    assert len(json.loads(out)["operators"]) == len(form.read_text().splitlines()) - 1 == 14
    header = TABLE.read_text().splitlines()[0]
    assert form.read_text().splitlines()[0] == header


@pytest.mark.slow
def test_a_search_runs_on_the_device(tmp_path):
    out = chipfit(
        "fit", NET, "--target", TARGETS["python"], "--budget", "latency_ms=80%", "--data", "digits",
        "--run", str(tmp_path / "run"), "--epochs", "0", "--recovery-epochs", "0.05",
        "--members", "1", "--workers", "1", "--method", "netadapt", "--option", "short_steps=1", "--option", "steps=2",
        "--table", str(tmp_path / "t.sqlite"), "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert found["budget_met"]
