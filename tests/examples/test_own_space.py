# SPDX-License-Identifier: Apache-2.0
"""The example of a search space of one's own: short, loadable from the command line, searchable."""

import json
from pathlib import Path

import torch
from click.testing import CliRunner

from chipfit.cli.main import cli
from chipfit.flow.network import load_network
from chipfit.methods.space_workload import SpaceWorkload
from chipfit.rewrite import replay
from chipfit.space import space_of

FILE = Path(__file__).parents[2] / "examples" / "own_space.py"
SPEC = f"{FILE}:net"


def test_the_space_is_about_twenty_lines():
    code = [line for line in FILE.read_text().splitlines() if line.strip()]
    inside = [line for line in code[code.index(next(c for c in code if c.startswith("def "))) :]]
    assert len(inside) <= 22


def test_the_command_line_takes_it():
    done = CliRunner().invoke(cli, ["profile", SPEC, "--target", "cortex-m4", "--json"])
    assert done.exception is None
    assert json.loads(done.stdout)["cost"]["latency_ms"] > 0


def test_every_architecture_of_it_is_a_network():
    net = load_network(SPEC, num_classes=7, data_shape=(1, 3, 32, 32)).net.eval()
    x = torch.zeros(net.input_shape)
    blocks = space_of(net)
    space = blocks.search_space
    assert [len(choice.options) for choice in space] == [4, 5, 4, 5]
    assert space.size == 400
    for architecture in [space.sample(seed) for seed in range(4)] + [space.largest()]:
        with torch.no_grad():
            assert replay(net, blocks.edits(architecture))(x).shape == (1, 7)
    assert SpaceWorkload(net, x, blocks).spliced
