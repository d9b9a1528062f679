import functools
import math

import numpy as np
import pytest
import torch

import chipfit as cf
from chipfit.errors import BadInput
from chipfit.space.blocks import BlockSpace
from chipfit.space.from_network import blocks_space
from chipfit.supernet.loop import search_supernet
from chipfit.supernet.pressure import Pressure
from chipfit.supernet.search_state import LoopSettings, SearchState
from chipfit.supernet.tiered_pruning import CHECKS, STEP, TieredPruning, Tiers, scores_of
from chipfit.supernet.windowed_search import drop_grids, move_window
from chipfit.supernet.windowed_supernet import WindowedSupernet


@functools.cache
def _opened():
    net = cf.nets.create("tiny_mobilenet_v2", num_classes=10, input_shape=(1, 1, 8, 8))
    space = blocks_space(net, torch.zeros(1, 1, 8, 8), (3, 5), (2, 3, 4, 6))
    return net, BlockSpace(space.choices[2:])


@pytest.fixture(scope="module")
def task():
    return cf.tasks.classification("digits")


def likeliest(scores):
    return [int(np.argmax(s)) for s in scores]


def begin(task, seed=0, steps=9, warmup=0.1):
    supernet = WindowedSupernet(*_opened(), seed=seed)
    first = next(iter(supernet.grids))
    index = [c.name for c in supernet.space].index(first)
    expected = {"macs": lambda p: (p[index] * torch.arange(1, len(p[index]) + 1)).sum()}
    return SearchState(
        supernet, task, Pressure("constraint", expected, {"macs": 2.0}),
        LoopSettings(
            steps, 16, warmup=warmup, temperatures=(2.0, 0.5), checkpoint_steps=2, record_steps=3,
            architecture_rate=0.5,
        ),
        seed,
    )  # fmt: skip


class Interrupted(Exception):
    pass


def run(task, checkpoint=None, stop=None):
    state, said = begin(task), []
    rule = TieredPruning(Tiers(checks=8, prune=0.9), likeliest, said.append)

    def record(state, seconds):
        if stop is not None and state.step >= stop:
            raise Interrupted

    search_supernet(state, rule, task.halves(0), checkpoint=checkpoint, on_record=record)
    return state, said, rule


def test_a_search_that_was_killed_between_moves_and_prunings_ends_as_if_it_had_not_been(
    task, tmp_path
):
    whole, said, rule = run(task)
    assert any("searches" in line for line in said) and any("loses" in line for line in said)
    path = tmp_path / "search.safetensors"
    with pytest.raises(Interrupted):
        run(task, path, stop=6)
    again, rest, other = run(task, path)
    assert rest == said[-len(rest) :] and 0 < len(rest) < len(said)
    assert again.supernet.structure() == whole.supernet.structure()
    assert whole.supernet.structure() != begin(task).supernet.structure()
    for n, v in whole.supernet.state_dict().items():
        assert torch.equal(v, again.supernet.state_dict()[n]), n
    assert rule.facts() == other.facts()
    for one, two in zip(whole.architecture_optimizer.state_dict()["state"].values(),
                        again.architecture_optimizer.state_dict()["state"].values(), strict=True):  # fmt: skip
        assert all(torch.equal(v, two[k]) for k, v in one.items())


def _grid(supernet, name, operation):
    names = [o.name for o in supernet.space[name].operations]
    return next(g for g in supernet.grids[name] if names.index(operation) in g.operations)


def test_optimisers_follow_a_move(task):
    state = begin(task)
    supernet, name = state.supernet, "features.3"
    grid = _grid(supernet, name, "k5_h80")
    for optimizer in (state.weight_optimizer, state.architecture_optimizer):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.rand_like(p) + 0.5
        optimizer.step()
    old = dict(state.architecture_optimizer.state[supernet.logits(name)])
    first = supernet._first(name, grid)
    path = supernet.paths(name, grid)[0]
    low, own = path._norms()
    momentum = state.weight_optimizer.state[low.weight]["momentum_buffer"].clone()
    before = supernet.weights()
    move_window(state, name, grid, up=False)
    hi = grid.widths[supernet.window(name, grid).hi][0]
    assert hi < grid.widths[-1][0]
    new = state.architecture_optimizer.state[supernet.logits(name)]
    assert torch.equal(new["exp_avg_sq"], old["exp_avg_sq"])
    pair = [first, first + 1]
    rest = [i for i in range(len(new["exp_avg"])) if i not in pair]
    assert new["exp_avg"][pair].abs().sum() == 0
    assert torch.equal(new["exp_avg"][rest], old["exp_avg"][rest])
    assert torch.equal(state.weight_optimizer.state[own.weight]["momentum_buffer"], momentum)
    assert own.weight is path._norms()[1].weight and torch.equal(own.weight, low.weight)
    wide = path.block.conv[0][0].weight
    buffer = state.weight_optimizer.state[wide]["momentum_buffer"]
    assert buffer[:hi].abs().min() > 0 and buffer[hi:].abs().sum() == 0
    project = state.weight_optimizer.state[path.block.conv[-2].weight]["momentum_buffer"]
    assert project[:, :hi].abs().min() > 0 and project[:, hi:].abs().sum() == 0
    assert {id(p) for p in supernet.weights()} == {id(p) for p in before}


def test_a_dropped_block_is_gone_from_supernet_and_optimisers(task):
    state = begin(task)
    supernet, name = state.supernet, "features.3"
    grid = _grid(supernet, name, "k5_h80")
    gone = {id(p) for path in supernet.paths(name, grid) for p in path.parameters()}
    total = sum(p.numel() for p in supernet.parameters())
    drop_grids(state, name, [grid])
    held = {id(p) for g in state.weight_optimizer.param_groups for p in g["params"]}
    assert gone and not gone & held
    assert not gone & {id(p) for p in supernet.parameters()}
    assert sum(p.numel() for p in supernet.parameters()) < total
    assert supernet.probabilities()[0].detach()[list(grid.operations)].sum() == 0


def _checked(state, rule, step):
    state.step = step
    rule.after(state)


def _set(supernet, name, masses):
    """Give the grids of a choice these probabilities, both sides of a window the same."""
    values = []
    for grid, mass in zip(supernet.grids[name], masses, strict=True):
        sides = supernet.window(name, grid).sides
        values += [math.log(mass / len(sides))] * len(sides)
    with torch.no_grad():
        supernet.logits(name).copy_(torch.tensor(values))


def test_a_block_goes_when_the_rising_threshold_reaches_it_and_nothing_else_moves(task):
    state = begin(task, steps=10, warmup=0.0)
    rule = TieredPruning(Tiers(checks=10, prune=0.8), likeliest)
    supernet, name = state.supernet, "features.3"
    count = len(supernet.grids[name])  # two grids of widths, and skip
    assert count == 3
    _set(supernet, name, [0.5, 0.15, 0.35])
    # 0.8 * done / 3 passes 0.15 at done = 0.6 (0.16), not at 0.5 (0.133).
    for step in range(5):
        _checked(state, rule, step)
        assert len(supernet.grids[name]) == 3
    _checked(state, rule, 5)
    assert [len(g.operations) for g in supernet.grids[name]] == [4, 1]
    assert supernet.masses(name) == pytest.approx([0.5 / 0.85, 0.35 / 0.85])
    for step in range(6, 10):
        _checked(state, rule, step)
    assert len(supernet.grids[name]) == 2


def test_the_best_architecture_within_the_budget_is_never_pruned(task):
    state = begin(task, steps=4, warmup=0.0)
    name = "features.3"
    index = [c.name for c in state.supernet.space].index(name)

    def needs_kernel_5(scores):
        row = likeliest(scores)
        row[index] = _grid(state.supernet, name, "k5_h80").operations[1]
        return row

    _set(state.supernet, name, [0.7, 0.01, 0.29])
    for step in range(4):
        _checked(state, TieredPruning(Tiers(4), needs_kernel_5), step)
    assert len(state.supernet.grids[name]) == 3
    for step in range(4):
        _checked(state, TieredPruning(Tiers(4), lambda scores: None), step)
    assert len(state.supernet.grids[name]) == 3
    _checked(state, TieredPruning(Tiers(4), likeliest), 3)
    assert len(state.supernet.grids[name]) == 2


def test_layers_go_one_at_a_time_from_the_end_of_their_stage(task):
    state = begin(task, steps=20, warmup=0.0)
    supernet = state.supernet
    rule = TieredPruning(Tiers(checks=20, prune=0.0), likeliest)
    layers = ["features.3", "features.4", "features.5"]  # one stage, behind a stride
    for name in layers:
        _set(supernet, name, [0.1, 0.1, 0.8])
    gone = []
    for step in range(CHECKS + 2):
        _checked(state, rule, step)
        gone.append([n for n in layers if len(supernet.grids[n]) == 1])
    assert gone[: CHECKS - 1] == [[]] * (CHECKS - 1)
    assert gone[CHECKS - 1 :] == [layers[2:], layers[1:], layers]
    assert supernet.most_probable()["features.3"] == "skip"
    # Early doubts are forgotten: an average of one check out of three is not enough.
    other = begin(task, steps=20, warmup=0.0)
    rule = TieredPruning(Tiers(checks=20, prune=0.0), likeliest)
    for step, skip in enumerate([0.8, 0.8, 0.1, 0.8, 0.8]):
        _set(other.supernet, "features.4", [(1 - skip) / 2, (1 - skip) / 2, skip])
        _checked(other, rule, step)
    assert len(other.supernet.grids["features.4"]) == 3


def test_windows_move_once_the_rising_share_is_reached(task):
    state = begin(task, steps=10, warmup=0.0)
    supernet, name = state.supernet, "features.3"
    grid = _grid(supernet, name, "k5_h80")
    first = supernet._first(name, grid)
    rule = TieredPruning(Tiers(checks=10, move_start=0.6, move_end=0.7, prune=0.0), likeliest)

    def lean(share):
        with torch.no_grad():
            supernet.logits(name)[first + 1] = supernet.logits(name)[first] + math.log(
                share / (1 - share)
            )

    start = supernet.window(name, grid)
    for step, share, moves in ((0, 0.605, False), (1, 0.625, True), (8, 0.685, False),
                               (8, 0.31, False), (9, 0.29, True)):  # fmt: skip
        lean(share)
        before = supernet.window(name, grid)
        _checked(state, rule, step)
        assert (supernet.window(name, grid) != before) == moves, (step, share)
    assert supernet.window(name, grid) == start.moved(True).moved(False)


def test_scores_are_log_probabilities_and_fall_beside_the_window(task):
    supernet = begin(task).supernet
    name = "features.3"
    grid = _grid(supernet, name, "k5_h80")
    supernet.move(name, grid, up=True)  # now of its four widths the last two
    supernet.move(name, grid, up=True)
    index = [c.name for c in supernet.space].index(name)
    sides = supernet.window(name, grid).sides
    mass = supernet.masses(name)[supernet.grids[name].index(grid)]
    scores = scores_of(supernet)[index]
    assert scores[grid.operations[sides[0]]] == pytest.approx(math.log(mass))
    assert [scores[i] - math.log(mass) for i in grid.operations] == pytest.approx(
        [-STEP * min(abs(p - s) for s in sides) for p in range(4)]
    )
    supernet.drop(name, [grid])
    assert np.isinf(scores_of(supernet)[index][list(grid.operations)]).all()


@pytest.mark.parametrize("wrong", [
    {"checks": 0}, {"move_start": 0.5}, {"move_start": 0.8}, {"move_end": 1.0}, {"prune": 1.0},
])  # fmt: skip
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(BadInput):
        Tiers(**wrong)
