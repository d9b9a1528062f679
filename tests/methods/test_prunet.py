from dataclasses import replace

import pytest

from chipfit.methods.prunet import PruNet
from chipfit.methods.supernet_search import COMMON

OPTIONS = {
    "search_steps": 6, "batch_size": 16, "proposals": 2, "architecture_rate": 0.5, "warmup": 0.1,
    "expansions": (2.0, 3.0, 4.0, 6.0), "kernels": (3,), "prune": 0.9, "floor": 0.9,
}  # fmt: skip


def test_windows_and_prunings_leave_a_network_in_the_band_of_the_budget(problem):
    asked, run = problem("analytic", {"macs": 0.75}, **OPTIONS)
    said, method = [], PruNet()
    asked = replace(asked, progress=said.append)
    family = list(method.search(asked, run))
    assert asked.budget.met(family[-1].predicted)
    assert family[-1].predicted["macs"] >= 0.9 * asked.budget.limits["macs"]
    assert any("searches k3_h" in line for line in said)
    opened = method.open_problem(asked)
    fresh = method.make_supernet(asked, opened)
    kept = run.recall("prunet/searched")["structure"]
    assert kept != fresh.structure()
    last = [e for e in run.journal.events if e.get("event") == "search"][-1]
    fresh.restructure(kept)
    for choice, p in last["probabilities"].items():
        assert sum(p) == pytest.approx(1.0, abs=1e-4)
        # Of the whole grid only what still runs has any probability.
        assert {i for i, v in enumerate(p) if v > 0} == set(fresh.alive[choice])
        assert len(fresh.alive[choice]) < len(p)


def test_defaults_are_the_common_ones_and_its_own():
    assert set(PruNet().defaults) == {*COMMON, "checks", "move_start", "move_end", "prune"}
