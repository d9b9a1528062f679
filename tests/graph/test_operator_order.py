# SPDX-License-Identifier: Apache-2.0
"""The order of least memory against all orders, and what is said where it is not searched out."""

import random

import pytest
import torch
from torch import nn

from chipfit.errors import BadInput
from chipfit.graph.capture import trace
from chipfit.graph.memory_graph import MemoryGraph, Step, live_sets, memory_graph, peak_bytes
from chipfit.graph.op import make_op
from chipfit.graph.operator_order import best_order, ordered
from chipfit.graph.workload import Node, Workload


def random_graph(seed, count=6):
    rng = random.Random(seed)
    sizes, steps, names = {"x": rng.randint(0, 9)}, [], ["x"]
    for i in range(count):
        reads = tuple(sorted(set(rng.choices(names, k=rng.randint(1, 3)))))
        needs = frozenset(int(name[1:]) for name in reads if name != "x")
        sizes[f"t{i}"] = rng.randint(0, 9)
        steps.append(Step(reads, (f"t{i}",), needs))
        names.append(f"t{i}")
    read = {name for step in steps for name in step.reads}
    outputs = {n for n in names[1:] if n not in read and rng.random() < 0.8} | {names[-1]}
    return MemoryGraph(sizes, tuple(steps), ("x",), frozenset(outputs), rng.choice([1, 4]))


def all_orders(graph, done=()):
    if len(done) == len(graph.steps):
        yield done
    for i, step in enumerate(graph.steps):
        if i not in done and step.needs <= set(done):
            yield from all_orders(graph, (*done, i))


@pytest.mark.parametrize("seed", range(50))
def test_no_order_of_a_random_graph_has_a_lower_peak(seed):
    graph = random_graph(seed)
    least = min(peak_bytes(graph, order) for order in all_orders(graph))
    found = best_order(graph)
    assert found.optimal
    assert found.peak_bytes == found.lower_bound_bytes == least
    assert peak_bytes(graph, found.order) == least
    hurried = best_order(graph, states=0, beam=2)
    assert hurried.lower_bound_bytes <= least <= hurried.peak_bytes <= peak_bytes(graph)


def test_many_of_the_random_graphs_stand_in_a_worse_order():
    graphs = [random_graph(seed) for seed in range(50)]
    assert sum(best_order(g).peak_bytes < peak_bytes(g) for g in graphs) > 25


def wide_branches(count):
    """Branches that widen 4 times and narrow to 1, joined at the end, widest first."""
    sizes = {"x": 2, "y": count}
    steps = [Step(("x",), (f"wide{i}",), frozenset()) for i in range(count)]
    steps += [Step((f"wide{i}",), (f"thin{i}",), frozenset({i})) for i in range(count)]
    thin = tuple(f"thin{i}" for i in range(count))
    steps.append(Step(thin, ("y",), frozenset(range(count, 2 * count))))
    sizes |= {f"wide{i}": 4 + i % 3 for i in range(count)} | dict.fromkeys(thin, 1)
    return MemoryGraph(sizes, tuple(steps), ("x",), frozenset({"y"}))


def test_branches_run_one_after_the_other():
    graph = wide_branches(4)
    found = best_order(graph)
    assert peak_bytes(graph) == 2 + 4 + 5 + 6 + 4
    # The widest first, while no other branch has left anything; the last finds three thin ones.
    assert found.peak_bytes == max(2 + 6, 2 + 1 + 5, 2 + 2 + 4, 2 + 3 + 4)
    assert found.optimal


def test_where_the_search_stops_the_answer_is_called_an_upper_bound():
    graph = wide_branches(12)
    stopped, full = best_order(graph, states=3, beam=1), best_order(graph)
    assert full.optimal
    assert not stopped.optimal or stopped.peak_bytes == full.peak_bytes
    assert stopped.lower_bound_bytes <= full.peak_bytes <= stopped.peak_bytes
    assert stopped.peak_bytes < peak_bytes(graph)


def test_an_order_that_cannot_run_is_refused():
    graph = wide_branches(2)
    with pytest.raises(BadInput, match="comes before"):
        live_sets(graph, (2, 0, 1, 3, 4))
    with pytest.raises(BadInput, match="no order"):
        peak_bytes(graph, (0, 0, 1, 2, 3))


def test_views_take_no_memory_and_unread_inputs_only_the_first_step():
    add = make_op("add", [(4,), (4,)], (4,))
    view = make_op("reshape", [(4,)], (2, 2))
    nodes = (
        Node("add", add, ("a", "a"), "s"), Node("view", view, ("s",), "v"),
        Node("last", make_op("activation", [(2, 2)], (2, 2), function="relu"), ("v",), "y"),
    )  # fmt: skip
    shapes = {"a": (4,), "unread": (9,), "s": (4,), "v": (2, 2), "y": (2, 2)}
    load = Workload(nodes, ("a", "unread"), ("y",), shapes)
    graph = memory_graph(load, 2)
    assert live_sets(graph) == [("a", "unread", "s"), ("s",), ("s", "y")]
    assert peak_bytes(graph) == 2 * (4 + 9 + 4)
    assert load.peak_activation_elements() == 4 + 9 + 4


class Branches(nn.Module):
    """Three branches that widen; the forward pass makes all wide tensors before any narrow one."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.wide = nn.ModuleList(nn.Conv2d(8, 32, 1) for _ in range(3))
        self.thin = nn.ModuleList(nn.Conv2d(32, 4, 1) for _ in range(3))

    def forward(self, x):
        x = self.stem(x)
        wide = [conv(x) for conv in self.wide]
        return torch.cat([conv(y) for conv, y in zip(self.thin, wide, strict=True)], 1)


def test_a_workload_is_put_into_the_order_of_least_memory():
    load = trace(Branches().eval(), torch.zeros(1, 1, 4, 4))
    better = ordered(load)
    assert peak_bytes(load) == 16 * (8 + 3 * 32)
    assert peak_bytes(better) == best_order(load).peak_bytes == 16 * (8 + 32 + 8)
    assert {node.name for node in better.nodes} == {node.name for node in load.nodes}
    assert ordered(better) is better
