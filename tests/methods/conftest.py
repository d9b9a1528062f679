import functools

import pytest
import torch

import chipfit as cf
from chipfit.cost.budget import Budget
from chipfit.cost.table import CostTable
from chipfit.graph import trace
from chipfit.methods.base import Problem
from chipfit.runs import Candidate, Run
from chipfit.train.jobs import Bench
from chipfit.train.loop import fit_model
from chipfit.workers import WorkerPool


@pytest.fixture(scope="session")
def trained():
    """Return a network of the zoo by name, trained on digits, and the task; each is made once."""
    task = cf.tasks.classification("digits")

    @functools.cache
    def make(name):
        net = cf.nets.create(name, num_classes=10, input_shape=task.input_shape)
        fit_model(net, task, task.recipe.replace(epochs=2), seed=0)
        return net.eval(), task

    return make


@pytest.fixture(scope="session")
def digits(trained):
    return trained("tiny_mobilenet_v2")


@pytest.fixture(scope="session")
def prices(tmp_path_factory):
    """One table for all tests: what one has compiled, the next need not."""
    return tmp_path_factory.mktemp("table") / "costs.sqlite"


@pytest.fixture
def problem(trained, prices, tmp_path):
    """Build a problem: ``problem("ethos-u55-128", {"latency_ms": 0.7}, steps=3)``."""
    pools = []

    def build(
        target_name, fractions, workers=1, seed=0, keep=(), net_name="tiny_mobilenet_v2", **options
    ):
        net, task = trained(net_name)
        target = cf.target(target_name)
        example = torch.zeros(task.input_shape)
        cost = target.cost(trace(net, example)).total
        weights = Run.open(tmp_path / f"run{len(pools)}", {})
        accuracy = task.evaluate(net, "val")["accuracy"]
        original = Candidate(
            "original", metrics={"val_accuracy": accuracy}, cost=dict(cost.values),
            provenance=cost.provenance,
        )  # fmt: skip
        pool = WorkerPool(workers, Bench(net, task))
        pools.append((pool, weights))
        return Problem(
            net=net, example=example, task=task, target=target, table=CostTable(prices),
            budget=Budget(fractions=fractions).resolve(cost), original=original, pool=pool,
            seed=seed, options={"short_steps": 2, "val_images": 50, **options}, keep=keep,
        ), weights  # fmt: skip

    yield build
    for pool, run in pools:
        pool.close()
        run.close()
