# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

import chipfit as cf
from chipfit.errors import BadInput
from chipfit.graph import trace
from chipfit.nets.nas_bench_201 import BEST, Cell, read_cell


def _uniform(operation):
    groups = ["|" + "|".join(f"{operation}~{i}" for i in range(n)) + "|" for n in (1, 2, 3)]
    return "+".join(groups)


@pytest.mark.parametrize(
    ("operation", "params", "macs"),
    [("nor_conv_3x3", 1_531_546, 220_119_680), ("none", 73_306, 7_783_040),
     ("skip_connect", 73_306, 7_783_040), ("avg_pool_3x3", 73_306, 7_783_040)],
)  # fmt: skip
def test_published_parameters_and_macs(operation, params, macs):
    net = cf.nets.create("nas_bench_201", cell=_uniform(operation))
    assert sum(parameter.numel() for parameter in net.parameters()) == params
    assert trace(net, torch.zeros(1, 3, 32, 32)).macs == macs


def test_a_cell_sums_what_its_edges_carry():
    cell = Cell(read_cell("|skip_connect~0|+|skip_connect~0|skip_connect~1|+|"
                          "none~0|skip_connect~1|skip_connect~2|"), 4)  # fmt: skip
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    assert torch.equal(cell(x), x + (x + x))


def test_edges_that_lead_nowhere_are_zero():
    x = torch.randn(1, 4, 8, 8)
    cell = Cell(read_cell("|skip_connect~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|"), 4)
    assert torch.equal(cell(x), torch.zeros_like(x))


def test_pooling_leaves_a_constant_image_alone():
    cell = Cell(read_cell("|none~0|+|none~0|none~1|+|avg_pool_3x3~0|none~1|none~2|"), 1)
    assert torch.equal(cell(torch.ones(1, 1, 6, 6)), torch.ones(1, 1, 6, 6))


def test_the_cell_may_stand_in_the_name():
    net = cf.nets.create(f"nas_bench_201:cell={BEST},cells=1", num_classes=7)
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    "cell", ["", "|none~0|", BEST[:-1], BEST.replace("~0", "~1", 1), BEST + "|none~0|",
             BEST.replace("skip_connect", "sep_conv"), BEST.replace("+", "-")],
)  # fmt: skip
def test_other_cells_are_refused(cell):
    with pytest.raises(BadInput, match="cell"):
        cf.nets.create("nas_bench_201", cell=cell)


def test_sizes_that_cannot_be_built_are_refused():
    with pytest.raises(BadInput, match="halves"):
        cf.nets.create("nas_bench_201", input_shape=(1, 3, 30, 32))
    with pytest.raises(BadInput, match="must be positive"):
        cf.nets.create("nas_bench_201", cells=0)
