# SPDX-License-Identifier: Apache-2.0
"""Correlations of training-free scores, on cells that can be checked by hand."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from benchmarks.run import QUICK  # noqa: E402
from benchmarks.training_free import (  # noqa: E402
    convolutions,
    correlations,
    main,
    sample,
    scored,
    with_intervals,
)
from chipfit.errors import BadInput  # noqa: E402
from chipfit.graph import trace  # noqa: E402
from chipfit.nets import create  # noqa: E402
from chipfit.space.nas_bench_201 import EDGES, accuracies, cell_space, cell_text  # noqa: E402

SPACE = cell_space()


@pytest.mark.parametrize("seed", range(12))
def test_live_convolutions_decide_the_macs(seed):
    cell = SPACE.sample(seed)
    net = create("nas_bench_201", cell=cell_text(cell), cells=1, input_shape=(1, 3, 8, 8))
    plain = create("nas_bench_201", cell=cell_text(SPACE.smallest()), cells=1,
                   input_shape=(1, 3, 8, 8))  # fmt: skip
    example = torch.zeros(1, 3, 8, 8)
    one = sum((16 * 2**stage) ** 2 * (8 >> stage) ** 2 for stage in range(3))
    threes, ones = convolutions(cell)
    assert trace(net, example).macs - trace(plain, example).macs == one * (9 * threes + ones)


def test_an_edge_that_leads_nowhere_is_no_convolution():
    cell = SPACE.check(dict.fromkeys(EDGES, "nor_conv_3x3") | {"1-3": "none", "1-2": "none"})
    assert convolutions(cell) == (3, 0)  # 0-1 ends there; 0-2, 2-3 and 0-3 are left


def test_a_larger_sample_holds_the_smaller_one():
    cells = [SPACE.sample(seed) for seed in range(200)]
    assert sample(cells, 50, 1)[:20] == sample(cells, 20, 1)
    assert sample(cells, 20, 1) != sample(cells, 20, 2)
    band = sample(cells, 3, 0, convolutions(cells[0]))
    assert {convolutions(cell) for cell in band} == {convolutions(cells[0])}
    with pytest.raises(BadInput, match="no sample"):
        sample(cells, 201, 0)


def test_correlations_take_ties_and_infinities():
    truth = np.array([10.0, 20.0, 30.0, 40.0])
    assert correlations(np.array([-math.inf, 1.0, 2.0, 3.0]), truth) == pytest.approx((1.0, 1.0))
    assert correlations(np.array([4.0, 3.0, 2.0, 1.0]), truth) == pytest.approx((-1.0, -1.0))
    # Ranks 1.5 1.5 3 4 against 1 2 3 4; five of six pairs agree and one is tied.
    rho, tau = correlations(np.array([1.0, 1.0, 2.0, 3.0]), truth)
    assert rho == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert tau == pytest.approx(5 / math.sqrt(5 * 6))
    assert correlations(np.ones(4), truth) is None


def test_intervals_hold_the_correlation_and_narrow_with_more_cells():
    draw = np.random.default_rng(0)
    widths = []
    for count in (20, 500):
        truth = draw.normal(size=count)
        values = truth + draw.normal(size=count)
        for found in with_intervals(values, truth, 200, 0):
            assert found["min"] < found["median"] < found["max"]
        widths.append(found["max"] - found["min"])
    assert widths[1] < widths[0] / 2
    assert with_intervals(np.ones(20), draw.normal(size=20), 10, 0) == [None, None]


def test_scores_are_kept_and_added_to(tmp_path):
    cell = SPACE.sample(0)
    first = scored(cell, ["params", "macs"], 2, 0, tmp_path)
    assert scored(cell, ["macs", "params"], 2, 0, tmp_path) == first
    more = scored(cell, ["params", "nn_mass"], 2, 0, tmp_path)
    assert more["params"] == first["params"]
    [file] = tmp_path.iterdir()
    assert set(json.loads(file.read_text())) == {"params", "macs", "nn_mass"}


def test_the_benchmark_writes_two_tables(fetched, tmp_path):
    fetched(accuracies)
    arguments = [*QUICK["training_free"], "--store", str(tmp_path / "s"), "--out", str(tmp_path)]
    assert main([*arguments, "--scores", "params", "naswot", "nn_mass"]) == 0
    random_cells, band = json.loads((tmp_path / "training_free.json").read_text())["tables"]
    assert "4 cells" in random_cells["title"]
    assert {row["score"] for row in random_cells["rows"]} == {"params", "naswot", "nn_mass"}
    assert "equal MACs" in band["title"]
    assert len(list((tmp_path / "s").glob("*/*.json"))) >= 4
