# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from click.testing import CliRunner

import chipfit as cf
from chipfit.cli.main import cli
from chipfit.errors import BadInput, UnknownName

pytest.importorskip("ethosu")

SHAPE = (1, 1, 28, 28)


def test_networks_compare_with_the_first():
    wide = cf.nets.create("tiny_mobilenet_v2", input_shape=SHAPE, width=2.0)
    found = cf.compare(["tiny_mobilenet_v2", wide], "ethos-u55-128", SHAPE)
    first, second = found.standings
    assert first.comparison.ratio == 1.0
    assert second.comparison.ratio > 1.0
    assert second.comparison.verdict == "slower"
    assert second.macs > first.macs
    data = json.loads(json.dumps(found.to_json()))
    assert [row["verdict"] for row in data["networks"]] == ["indistinguishable", "slower"]
    assert "slower" in str(found)


def test_the_command_prints_one_document():
    arguments = [
        "compare", "tiny_mobilenet_v2", "tiny_mobilenet_v2", "--target", "ethos-u55-128",
        "--input", "1,1,28,28",
    ]  # fmt: skip
    result = CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False)
    assert json.loads(result.stdout)["networks"][1]["ratio"] == 1.0
    table = CliRunner().invoke(cli, arguments, catch_exceptions=False).stdout
    assert "exact" in table


def test_what_cannot_be_compared():
    with pytest.raises(BadInput, match="two networks"):
        cf.compare(["tiny_mobilenet_v2"], "ethos-u55-128")
    with pytest.raises(UnknownName):
        cf.compare(["tiny_mobilenet_v2", "tiny_mobilenet_v3"], "ethos-u55-128")
