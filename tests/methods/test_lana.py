"""LANA: replacements that learnt from activations, chosen by an integer programme."""

import itertools
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import chipfit as cf
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.graph import trace
from chipfit.methods.lana import Lana
from chipfit.methods.lana_jobs import dealt
from chipfit.methods.lana_plan import Plan, additions, check_plan, open_plan
from chipfit.runs.run import Run
from chipfit.space.blocks import KEEP
from chipfit.train.jobs import Bench
from chipfit.train.loop import fit_model
from chipfit.workers import WorkerPool

SMALL = {
    "kinds": ("skip", "conv", "separable"), "kernels": (3,), "distil_steps": 3, "batch_size": 16,
    "together": 1, "score_images": 64, "levels": 2, "solutions": 2, "short_steps": 2,
    "val_images": 50,
}  # fmt: skip


class Unit(nn.Module):
    def __init__(self, i, o, stride=1):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)))


class Own(nn.Module):
    """A user's own network."""

    input_shape = (1, 1, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem = Unit(1, 8)
        self.layers = nn.ModuleList([Unit(8, 8), Unit(8, 16, 2), Unit(16, 16)])
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    net = Own()
    task = cf.tasks.classification("digits")
    fit_model(net, task, task.recipe.replace(epochs=2, batch_size=64), seed=0)
    return net.eval()


@pytest.fixture
def own(problem, teacher):
    """Build a problem with a network of the user's own."""
    pools = []

    def build(fraction=0.6, **options):
        found, run = problem("analytic", {"macs": 0.9})
        net = teacher
        cost = found.target.cost(trace(net, found.example)).total
        pool = WorkerPool(1, Bench(net, found.task))
        pools.append(pool)
        made = replace(
            found, net=net, options={**SMALL, **options}, memo={}, pool=pool,
            budget=type(found.budget)({"macs": fraction * cost["macs"]}),
            original=found.original.with_(cost=dict(cost.values)),
        )  # fmt: skip
        return made, run

    yield build
    for pool in pools:
        pool.close()


def plan_of(problem) -> Plan:
    return open_plan(problem, {**Lana.defaults, **problem.options})


def summary(candidates, folder):
    return [
        (c.id, c.edits, dict(c.predicted), dict(c.metrics), (folder / c.weights).read_bytes())
        for c in candidates
    ]


@pytest.mark.parametrize(
    ("blocks", "names"),
    [("", ["stem", "layers.0", "layers.1", "layers.2"]),
     ("layers.*", ["layers.0", "layers.1", "layers.2"]), ("stem layers.2", ["stem", "layers.2"])],
)  # fmt: skip
def test_blocks_of_ones_own_network_are_found_or_named(own, blocks, names):
    problem, _ = own(0.9, blocks=blocks)
    assert [c.name for c in plan_of(problem).blocks] == names
    with pytest.raises(BadInput, match="no module"):
        Lana().check(replace(problem, options={**SMALL, "blocks": "nothing.*"}))


def test_only_what_saves_something_is_worth_training(own):
    problem, _ = own()
    plan = plan_of(problem)
    _, (table, *_) = additions(plan.costs, "macs")
    for choice, useful in zip(plan.blocks, plan.useful, strict=True):
        assert useful[0] == 0
        assert choice.operations[0].name == KEEP
    assert plan.additive
    assert all((table[i] < 0) == (i in plan.useful[0][1:]) for i in range(len(table)))
    assert "conv_k3" not in plan.pool()["layers.0"]  # it is what stands there
    assert set(plan.pool()["layers.0"]) == {"skip", "conv_k1", "separable_k3"}
    assert dealt({"a": ["x", "y", "z"], "b": ["w"]}, 2) == [
        (("a", "x"), ("a", "y"), ("b", "w")), (("a", "z"),),
    ]  # fmt: skip


def drawn_values(plan, seed):
    rng = np.random.default_rng(seed)
    increases = {
        c.name: {name: float(rng.normal(0.2, 0.3)) for name in plan.pool()[c.name]}
        for c in plan.blocks
    }
    return plan.values(increases)


def brute_force(plan, values, limits, before=(), alike=None):
    """Look at every architecture: the best within the limits that differs enough from others."""
    rows = np.array(list(itertools.product(*(range(len(v)) for v in values))))
    total = sum(own[rows[:, c]] for c, own in enumerate(values))
    inside = np.isfinite(total)
    for key, limit in limits.items():
        inside &= plan.costs.of(key)(rows) <= limit
    for other in before:
        inside &= (rows == np.array(other)).sum(axis=1) <= alike
    return float(total[inside].max())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.8])
def test_the_programme_equals_brute_force_and_solutions_differ(own, seed, fraction):
    problem, _ = own(fraction)
    plan = plan_of(problem)
    values = drawn_values(plan, seed)  # some of them are negative increases: they stay
    limits = problem.budget.limits
    found = plan.choose(values, limits, 4, 0.5)
    for i, one in enumerate(found):
        earlier = [other.choice for other in found[:i]]
        assert one.value == pytest.approx(brute_force(plan, values, limits, earlier, 2), abs=1e-9)
        assert one.status == "optimal"
        assert plan.costs.of("macs")(np.array([one.choice]))[0] <= limits["macs"]
        assert all(one.overlap(other) <= 2 for other in found[:i])


@pytest.mark.parametrize("seed", range(2))
def test_costs_that_depend_on_neighbours_are_kept_within_the_budget(own, seed):
    problem, _ = own(0.5)
    plan = replace(plan_of(problem), additive=False)
    values = drawn_values(plan, seed)
    limits = problem.budget.limits
    found = plan.choose(values, limits, 3, 0.5)
    assert found[0].value == pytest.approx(brute_force(plan, values, limits), abs=1e-9)
    for i, one in enumerate(found):
        assert plan.costs.of("macs")(np.array([one.choice]))[0] <= limits["macs"]
        assert all(one.overlap(other) <= 2 for other in found[:i])


def test_prices_of_a_device_that_depend_on_neighbours(problem):
    found, _ = problem("ethos-u55-128", {"latency_ms": 0.8})
    options = {**SMALL, "kinds": ("skip", "separable"), "blocks": "features.3 features.4"}
    plan = open_plan(found, {**Lana.defaults, **options})
    values = plan.no_values()
    one = plan.choose(values, {"latency_ms": 1.0})[0]
    assert plan.costs.of("latency_ms")(np.array([one.choice]))[0] <= 1.0
    with pytest.raises(InfeasibleBudget, match="latency_ms"):
        check_plan(replace(found, budget=type(found.budget)({"latency_ms": 0.01})), plan)


def test_a_family_of_ones_own_network_and_a_kill_at_any_moment(own, tmp_path):
    problem, run = own(0.5)
    family = list(Lana().search(problem, run))
    assert len(family) == 2
    assert problem.budget.met(family[-1].predicted)
    assert not problem.budget.met(family[0].predicted)
    whole = summary(family, run.folder)
    built = family[-1].build(problem.net, run.folder)
    assert trace(built, problem.example).macs == family[-1].predicted["macs"]
    keys = [e["key"] for e in run.journal.events if "key" in e]
    assert "lana/pool" in keys
    assert "lana/distil/2" in keys
    assert "lana/solved/2" in keys
    # Every record may have been the last one before a kill.
    lines = (run.folder / "journal.jsonl").read_text().splitlines(keepends=True)
    ends = [i for i, e in enumerate(run.journal.events) if e.get("key") in keys]
    run.close()
    for number, end in enumerate(ends[1::5]):
        folder = tmp_path / f"again-{number}"
        shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("lana-0*", ".lock"))
        (folder / "journal.jsonl").write_text("".join(lines[: end + 1]))
        again = Run.open(folder, {})
        done = {e.get("key") for e in again.journal.events}
        if "lana/step/1" in done:
            shutil.copytree(run.folder / "candidates/lana-01", folder / "candidates/lana-01")
        if "lana/step/2" in done:
            shutil.copytree(run.folder / "candidates/lana-02", folder / "candidates/lana-02")
        assert summary(Lana().search(problem, again), folder) == whole
        again.close()


def test_without_recovery_the_assembled_network_is_what_is_kept(own):
    problem, run = own(0.6, short_steps=0, levels=1, solutions=1)
    (only,) = Lana().search(problem, run)
    done = run.recall("lana/step/1")
    assert done["assembled"] == only.metrics["val_accuracy"]
    net = only.build(problem.net, run.folder)
    found = problem.task.evaluate(net, "val", limit=50)
    assert found["accuracy"] == pytest.approx(done["assembled"])


def test_a_space_that_the_network_carries_is_used(problem, toy_net):
    found, _ = problem("analytic", {"macs": 0.9})
    net = toy_net().eval()
    plan = open_plan(replace(found, net=net, memo={}), {**Lana.defaults, **SMALL})
    assert [c.name for c in plan.blocks] == ["features.3", "features.5"]
    kept = replace(found, net=net, memo={}, keep=("features.3",))
    assert [c.name for c in open_plan(kept, {**Lana.defaults, **SMALL}).blocks] == ["features.5"]


@pytest.mark.parametrize(
    "wrong",
    [{"solutions": 0}, {"distil_epochs": 0.0}, {"kinds": ("magic",)}, {"together": 0},
     {"short_steps": -1}, {"learning_rate": 0.0}],
)  # fmt: skip
def test_options_out_of_range_are_refused(own, wrong):
    problem, _ = own(0.6, **wrong)
    with pytest.raises(BadInput):
        Lana().check(problem)


def test_replacements_that_save_nothing_are_refused(own):
    problem, _ = own(0.6, kinds=("fused",), expansions=(8.0,), blocks="stem")
    with pytest.raises(InfeasibleBudget, match="no block of this network gets cheaper"):
        Lana().check(problem)
