import numpy as np
import pytest
import torch

from chipfit.methods.space_band import _tilted, random_in_band
from chipfit.methods.space_costs import SpaceCosts
from chipfit.supernet.expectation import all_codes


@pytest.fixture
def costs(problem, toy_net):
    found, _ = problem("analytic", {"macs": 0.8})
    return SpaceCosts(found, toy_net().block_space)


def test_what_is_drawn_is_in_the_band_and_all_of_it_is_reached(costs):
    codes = all_codes([len(c.options) for c in costs.space])
    values = np.sort(costs.of("macs")(codes))
    low, high = float(values[3]), float(values[8])
    want = {tuple(r) for r in codes.tolist() if low <= costs.of("macs")(np.array([r]))[0] <= high}
    rows = random_in_band(costs, {"macs": high}, low, 100, seed=0)
    assert set(rows) == want and len(rows) == len(want)
    assert random_in_band(costs, {"macs": high}, low, 100, seed=0) == rows
    few = random_in_band(costs, {"macs": high}, low, 2, seed=1)
    assert len(few) == 2 and set(few) <= want
    assert random_in_band(costs, {"macs": float(values[0]) - 1.0}, 0.0, 3, seed=0) == []


def test_further_bounds_and_pruned_options_are_kept_out(costs):
    bounds = {"macs": 1e9, "params": float(np.median(costs.of("params")(np.eye(2, dtype=int))))}
    allowed = [[0, 2], list(range(len(costs.space.choices[1].options)))]
    rows = random_in_band(costs, bounds, 0.0, 100, 0, allowed)
    assert rows
    assert {row[0] for row in rows} <= {0, 2}
    assert costs.of("params")(np.array(rows)).max() <= bounds["params"]


def test_the_mean_cost_of_the_draws_is_at_the_nearer_end_of_the_band(costs):
    sizes = [len(c.options) for c in costs.space]
    values = costs.of("macs")(all_codes(sizes))
    options = [list(range(n)) for n in sizes]
    expected = costs.expectation("macs")
    even = float(expected([torch.full((n,), 1 / n, dtype=torch.float64) for n in sizes]))
    cheap, dear = (float(values.min() + share * np.ptp(values)) for share in (0.1, 0.9))
    assert cheap < even < dear
    for band, mean in (((0.0, cheap), cheap), ((dear, 1e9), dear), ((cheap, dear), even)):
        p = _tilted(costs, "macs", band, sizes, options)
        assert float(expected([torch.as_tensor(v) for v in p])) == pytest.approx(mean, rel=1e-6)
        assert all(v.sum() == pytest.approx(1.0) for v in p)
        assert (mean == even) == all(len(set(v.tolist())) == 1 for v in p)
