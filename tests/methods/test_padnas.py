import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from chipfit.blackbox import Evaluation
from chipfit.errors import BadInput, StorageError
from chipfit.methods.one_shot_evolution import OneShotEvolution, Window, front_number
from chipfit.methods.padnas import PadNAS
from chipfit.methods.space_costs import SpaceCosts
from chipfit.supernet.supernet import Supernet

QUICK = {
    "search_steps": 6, "batch_size": 16, "val_images": 20, "proposals": 2, "phases": (1.0, 1.0),
    "population": 4, "generations": 2, "evolution_images": 20, "window": 0.6, "rank": 3,
}  # fmt: skip


class Interrupted(Exception):
    pass


@pytest.fixture
def asked(problem, toy_net):
    def build(progress=lambda line: None, **options):
        found, run = problem("analytic", {"macs": 0.8})
        net = copy.deepcopy(found.net)
        net.block_space = toy_net().block_space
        return replace(found, net=net, progress=progress, options={**QUICK, **options}), run

    return build


def decided(family, run):
    return [
        (c.id, dict(c.architecture), dict(c.predicted), dict(c.metrics),
         (run.folder / c.weights).read_bytes())
        for c in family
    ]  # fmt: skip


def test_ranks_count_from_one_and_follow_the_metric():
    figures = [(0.9, 5.0), (0.8, 3.0), (0.8, 4.0), (0.7, 4.5), (0.9, 6.0)]
    found = [Evaluation((i,), f) for i, f in enumerate(figures)]
    assert front_number(found, True).tolist() == [1, 1, 2, 3, 2]
    assert front_number(found, False).tolist() == [3, 1, 2, 1, 4]


def test_a_window_says_by_how_much_it_is_missed():
    window = Window({"macs": 10.0, "params": 4.0}, 5.0)
    assert window.violation({"macs": 7.0, "params": 1.0}) == 0.0
    assert window.violation({"macs": 4.0, "params": 5.0}) == pytest.approx(0.2 + 0.25)
    assert window.violation({"macs": 15.0, "params": 4.0}) == pytest.approx(0.5)


def test_the_space_shrinks_and_the_family_is_within_its_levels(asked):
    problem, run = asked(levels=2, search_steps=9, phases=(1.0, 1.0, 1.0))
    family = list(PadNAS().search(problem, run))
    levels = run.recall("padnas/levels")["levels"]
    assert len(levels) == 2
    assert all(c.predicted["macs"] <= v["macs"] for c, v in zip(family, levels, strict=False))
    assert problem.budget.met(family[-1].predicted)
    sizes = []
    for phase, step in ((1, 3), (2, 6)):
        event = run.recall(f"padnas/pruned/{phase}")
        assert event["step"] == step and event["evaluated"] >= 4
        sizes.append({name: len(own) for name, own in event["kept"].items()})
    whole = {name: len(own) for name, own in run.recall("padnas/supernet")["choices"].items()}
    assert all(sizes[1][n] <= sizes[0][n] <= whole[n] for n in whole)
    assert sum(sizes[1].values()) < sum(whole.values())
    structure = run.recall("padnas/searched")["structure"]
    assert {name: len(own) for name, own in structure.items()} == sizes[1]
    for member in family:
        kept = run.recall("padnas/pruned/2")["kept"]
        assert all(member.architecture[name] in own for name, own in kept.items())
    last = [e for e in run.journal.events if e.get("event") == "search"][-1]
    assert "val_loss" not in last  # there is no step of the logits


def test_a_search_that_was_killed_in_evolutions_ends_as_if_it_had_not_been(asked):
    lines = []
    problem, run = asked(progress=lines.append)
    whole = decided(PadNAS().search(problem, run), run)
    evolution = [line for line in lines if line.startswith("evolution")]
    first = [line for line in lines if line.startswith(("evolution", "phase"))]
    seen, kills = [], [2, first.index(next(t for t in first if t.startswith("phase"))) + 1]

    def stop(line):
        if line.startswith("evolution"):
            seen.append(line)
            if kills and len(seen) == kills[0]:
                del kills[0]
                raise Interrupted

    problem, run = asked(progress=stop)
    for _ in range(2):
        with pytest.raises(Interrupted):
            list(PadNAS().search(problem, run))
    assert decided(PadNAS().search(problem, run), run) == whole
    assert seen == evolution  # nothing was judged twice


def test_the_evolution_stays_in_the_window_and_leaves_the_supernet_alone(asked, tmp_path):
    problem, run = asked()
    space = problem.net.block_space
    supernet = Supernet(problem.net, space, seed=0)
    supernet.prune(space.choices[0].name, [o.name for o in space.choices[0].operations[1:]])
    before = {n: v.clone() for n, v in supernet.state_dict().items()}
    costs = SpaceCosts(problem, space)
    limit = problem.budget.limits["macs"]
    evolution = OneShotEvolution(problem, costs, 4, 2, 20)
    found = evolution.run(supernet, Window({"macs": limit}, 0.5 * limit), 0, tmp_path / "e.json")
    assert len(found) >= 4 and len({e.row for e in found}) == len(found)
    for e in found:
        assert e.row[0] > 0  # pruned
        assert 0.5 * limit <= e.values[1] <= limit
        assert e.values[1] == costs.of("macs")(np.array([e.row]))[0]
        assert 0 <= e.values[0] <= 1
    assert all(torch.equal(v, before[n]) for n, v in supernet.state_dict().items())
    # No architecture costs so nearly what the budget is: the lower bound goes.
    narrow = Window({"macs": limit}, limit * (1 - 1e-9))
    assert evolution.run(supernet, narrow, 0, tmp_path / "f.json")
    (tmp_path / "e.json").write_text("{")
    with pytest.raises(StorageError):
        evolution.run(supernet, Window({"macs": limit}), 0, tmp_path / "e.json")


@pytest.mark.parametrize(
    "options",
    [{"phases": ()}, {"phases": (1.0, 0.0)}, {"window": 1.1}, {"population": 1}, {"rank": 1},
     {"threshold": 1.0}, {"generations": 0}, {"evolution_images": 0}],
)  # fmt: skip
def test_options_out_of_range_are_refused(asked, options):
    problem, _ = asked(**options)
    with pytest.raises(BadInput):
        PadNAS().check(problem)


def test_options_without_a_meaning_are_not_offered():
    assert not {"warmup", "every", "penalty", "temperature_end"} & set(PadNAS().defaults)
    assert {"phases", "levels", "search_epochs", "kernels"} <= set(PadNAS().defaults)
