import itertools

import numpy as np
import pytest
import torch

from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.files import read_state
from chipfit.graph.capture import trace
from chipfit.graph.channels import channel_groups
from chipfit.methods.auto import FIRST, Auto, _look
from chipfit.methods.auto_assembly import AssemblyJob, assemble
from chipfit.methods.auto_blocks import BATCH, images_that_fit
from chipfit.methods.auto_proposals import Proposer, worth
from chipfit.methods.auto_weighing import Weighing, first_weighings, fitted, narrowed_alike
from chipfit.methods.base import METHODS
from chipfit.methods.joint_space import JointSpace
from chipfit.methods.joint_table import JointTable
from chipfit.methods.width_table import thinned_widths
from chipfit.rewrite.edits import edits_for
from chipfit.rewrite.slice import side_sizes, slice_channels
from chipfit.train.jobs import Bench

QUICK = {"levels": 2, "widths": 3, "images": 64, "rounds": 2, "tries": 3, "val_images": 50}


@pytest.fixture
def table(problem):
    """A width table of the usual network, and the problem it belongs to."""
    found, _ = problem("analytic", {"macs": 0.5})
    groups = channel_groups(found.net, found.example)
    widths = thinned_widths(groups, 8, 3)
    return found, JointTable(found, groups, JointSpace(found.net, found.example, groups, widths))


def test_all_groups_alike_is_the_widest_such_network_within_the_budget(table):
    found, table = table
    limits = dict(found.budget.limits)
    row = narrowed_alike(table, limits)
    assert table.of("macs")(np.array([row]))[0] <= limits["macs"]
    assert narrowed_alike(table, {"macs": 1e12}) == table.full
    assert narrowed_alike(table, {"macs": 1.0}) is None


def test_values_are_weighed_losses_and_capacity():
    lost = [np.array([1.0, 0.5, 0.0]), np.array([2.0, 0.0])]
    shares = [np.array([0.25, 0.5, 1.0]), np.array([0.1, 1.0])]
    first, second = Weighing((3.0, 0.5), (2.0, 2.0)).values(lost, shares)
    assert first == pytest.approx([2 * np.log(0.25) - 3, 2 * np.log(0.5) - 1.5, 0.0])
    assert second == pytest.approx([2 * np.log(0.1) - 1, 0.0])
    assert set(first_weighings(3)) | {"alike"} == set(FIRST)


def test_fitted_weights_are_those_by_which_distances_were_made():
    rng = np.random.default_rng(0)
    lost = [np.append(np.sort(rng.random(4))[::-1], 0.0) for _ in range(5)]
    rows = rng.integers(0, 5, (400, 5))
    true = np.array([3.0, 0.5, 1.0, 2.0, 0.2])
    distances = sum(w * own[rows[:, g]] for g, (w, own) in enumerate(zip(true, lost))) + 1e-9
    found = np.array(fitted(lost, rows, distances).losses)
    assert (np.argsort(found) == np.argsort(true)).all()
    # Weights count against each other; they are drawn together a little.
    assert found / found.sum() == pytest.approx(true / true.sum(), abs=0.05)


def test_weights_that_nothing_speaks_for_stay_together():
    lost = [np.array([1.0, 0.0])] * 3
    weights = fitted(lost, np.array([[0, 1, 1]]), np.array([2.0])).losses
    assert weights == pytest.approx([1, 1, 1]) and min(weights) > 0
    none = fitted(lost, np.array([[1, 1, 1]]), np.array([2.0])).losses
    assert np.isfinite(none).all()


def test_networks_next_to_one_are_within_the_limits_and_differ(table):
    found, table = table
    proposer = Proposer(table, found.budget.limits)
    values = [-(np.linspace(1, 0, len(c.options)) ** 2) for c in table.space]
    best = proposer.best(values)
    rows = proposer.around(best, values, 6)
    worths = [worth(values, row) for row in rows]
    assert worths == sorted(worths, reverse=True) and worths[0] >= worth(values, best)
    assert len(set(rows)) == len(rows) > 4
    assert (table.of("macs")(np.array(rows)) <= found.budget.limits["macs"]).all()
    # Some let another group widen: they are more than the best with one choice changed.
    assert max(sum(a != b for a, b in zip(row, best)) for row in rows) > 1


def test_what_is_put_together_is_nearer_than_what_is_only_sliced(digits, tmp_path):
    net, task = digits
    groups = [g for g in channel_groups(net, task.example_input()) if not g.frozen]
    half = {g.name: range(g.channels // 2) for g in groups[:3]}
    edits = tuple(edits_for(groups, half, side_sizes(net)))
    bench = Bench(net.eval(), task)
    assert assemble(bench, AssemblyJob((), {}, 128))["distance"] == pytest.approx(0, abs=1e-3)
    job = AssemblyJob(edits, {}, 128, True, tmp_path / "solved.safetensors", 100)
    found = assemble(bench, job)
    narrow = slice_channels(net, edits).eval()
    judging = task.calibration_batches(4, 64)[2:]

    def distance():
        with torch.no_grad():
            return np.mean([float(task.distillation(narrow(b), net(b), 1.0)) for b in judging])

    sliced = distance()
    plain = assemble(bench, AssemblyJob(edits, {}, 128, False))
    assert plain["distance"] == pytest.approx(sliced, rel=1e-4)
    narrow.load_state_dict(read_state(job.weights_after))
    assert found["distance"] == pytest.approx(distance(), rel=1e-4)
    assert found["distance"] < sliced
    assert found["val_accuracy"] == task.evaluate(narrow, "val", limit=100)["accuracy"]


def test_members_are_within_their_budgets_and_savings_add_up(problem):
    found, run = problem("analytic", {"macs": 0.5}, **QUICK)
    start = found.original_cost["macs"]
    members = list(METHODS.get("auto").value().search(found, run))
    limits = [run.recall(f"auto/step/{m.step}")["constraint"]["macs"] for m in members]
    assert limits == pytest.approx([0.75 * start, 0.5 * start])
    for member, limit in zip(members, limits):
        assert member.predicted["macs"] <= limit
        saved = sum(change["macs_saved"] for change in member.changes)
        assert start - saved == pytest.approx(member.predicted["macs"])


def test_the_nearest_of_all_that_were_judged_stays(problem):
    found, run = problem("analytic", {"macs": 0.5}, **{**QUICK, "levels": 1})
    (member,) = METHODS.get("auto").value().search(found, run)
    scores = [e for e in run.journal if e["event"] == "score"]
    assert len(scores) == run.recall("auto/step/1")["proposals"] >= 2
    nearest = min(scores, key=lambda e: e["distance"])
    done = run.recall("auto/step/1")
    assert (nearest["row"], nearest["distance"]) == (done["row"], done["distance"])
    groups = [g.name for g in channel_groups(found.net, found.example) if not g.frozen]
    assert [name for name in member.architecture if not name.startswith("block ")] == groups


def test_losses_alone_are_allocated_best(problem):
    found, run = problem(
        "analytic", {"macs": 0.5},
        **{**QUICK, "levels": 1, "first": "losses", "rounds": 0, "replace": ()},
    )  # fmt: skip
    method = Auto()
    (member,) = method.search(found, run)
    options, table = method._open(found)
    codes = np.array(list(itertools.product(*(range(len(c.options)) for c in table.space))))
    inside = codes[table.of("macs")(codes) <= found.budget.limits["macs"]]
    known = _look(found, options, table)
    values = first_weighings(len(table.full))["losses"].values(known.lost, known.shares)
    worth = sum(v[inside[:, g]] for g, v in enumerate(values))
    mine = sum(v[i] for v, i in zip(values, table.rows([member.architecture])[0]))
    assert 1.03 * worth.max() <= mine <= worth.max() + 1e-9  # all are negative


def test_a_budget_is_refused_only_where_no_operation_of_the_blocks_meets_it(problem):
    found, _ = problem("analytic", {"macs": 0.5}, **QUICK)
    table = Auto()._open(found)[1]
    choices = [range(len(c.options)) if c.name.startswith("block ") else [0] for c in table.space]
    rows = np.array(list(itertools.product(*choices)))
    least = float(table.of("macs")(rows).min())
    assert least < table.of("macs")(np.zeros_like(rows[:1]))[0]
    start = found.original_cost["macs"]
    Auto().check(problem("analytic", {"macs": 1.001 * least / start}, **QUICK)[0])
    with pytest.raises(InfeasibleBudget, match="narrowest"):
        Auto().check(problem("analytic", {"macs": 0.999 * least / start}, **QUICK)[0])


def test_where_it_can_begin_nowhere_it_says_so(problem):
    only = {**QUICK, "levels": 1, "first": "alike"}
    found, _ = problem("analytic", {"macs": 0.5}, **only)
    table = Auto()._open(found)[1]
    row = np.array([table.cheapest()])
    least = float(table.of("macs")(row)[0])  # blocks are gone there, which alike does not think of
    tight, run = problem("analytic", {"macs": 1.001 * least / found.original_cost["macs"]}, **only)
    with pytest.raises(InfeasibleBudget, match="alike"):
        list(Auto().search(tight, run))


def test_large_activations_take_fewer_images():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 1), torch.nn.MaxPool2d(2)).eval()
    small, large = (images_that_fit(trace(net, torch.rand(1, 3, n, n))) for n in (32, 256))
    assert small == 2**30 // (4 * 64 * 32**2) and large == BATCH
    assert images_that_fit(trace(net, torch.rand(1, 3, 100, 100))) == 384


def test_what_is_out_of_reach_or_range_is_refused(problem):
    found, _ = problem("analytic", {"macs": 0.0001}, **QUICK)
    with pytest.raises(InfeasibleBudget, match="narrowest"):
        Auto().check(found)
    wrong, _ = problem("analytic", {"macs": 0.5}, **{**QUICK, "first": ("luck",)})
    with pytest.raises(BadInput, match="first"):
        Auto().check(wrong)
