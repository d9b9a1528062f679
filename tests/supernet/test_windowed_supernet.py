import pytest
import torch
from torch import nn

import chipfit as cf
from chipfit.errors import BadInput, ChipfitError
from chipfit.rewrite.replay import replay
from chipfit.rewrite.swap import Swap
from chipfit.space.blocks import KEEP, BlockChoice, BlockSpace, Operation
from chipfit.space.from_network import blocks_space
from chipfit.supernet.hidden_grid import hidden_grids
from chipfit.supernet.mixture import BinaryGates, Fixed, GumbelSoftmax, Softmax
from chipfit.supernet.supernet import Supernet
from chipfit.supernet.windowed_supernet import WindowedSupernet
from chipfit.train.randomness import generator

SHAPE = (1, 1, 8, 8)


def _net():
    torch.manual_seed(0)
    net = cf.nets.create("tiny_mobilenet_v2", num_classes=10, input_shape=SHAPE).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return net


def _space(net):
    return blocks_space(net, torch.zeros(SHAPE), (3, 5), (1, 2, 3, 4, 6))


@pytest.fixture
def made():
    net = _net().double()
    return net, WindowedSupernet(net, _space(net.float()), seed=1).double()


def _x():
    return torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def test_operations_that_differ_in_the_hidden_width_alone_are_a_grid():
    net = _net()
    choice = _space(net)["features.3"]
    names = [o.name for o in choice.operations]
    grids = hidden_grids(net, choice)
    found = [[names[i] for i in grid.operations] for grid in grids]
    # The block that stands there is k3_h120; at 40, its input, it would have no expansion.
    assert sorted(map(tuple, found)) == sorted([
        ("k3_h80", "keep", "k3_h160", "k3_h240"), ("k5_h80", "k5_h120", "k5_h160", "k5_h240"),
        ("k3_h40",), ("k5_h40",), ("skip",),
    ])  # fmt: skip
    own = next(grid for grid in grids if names.index(KEEP) in grid.operations)
    assert own.widths == ((80,), (120,), (160,), (240,))
    assert own.windowed and own.swaps[0].options["hidden"] == 240


def test_a_block_that_is_not_the_same_module_stays_by_itself():
    net = _net()
    net.features[3].conv[0][1].eps = 1e-3
    choice = _space(net)["features.3"]
    keep = next(i for i, o in enumerate(choice.operations) if o.name == KEEP)
    assert any(grid.operations == (keep,) for grid in hidden_grids(net, choice))


def _tied():
    """Return a network and a space in which one choice decides two places of several widths."""
    net = _net()

    def swaps(expansion):
        return tuple(
            Swap(f"features.{i}", "inverted_residual", 40, 40, 1, {"expansion": expansion})
            for i in (3, 4)
        )

    names = {"wide": 6, "narrow": 2, "middle": 3}
    operations = tuple(Operation(n, swaps(e)) for n, e in names.items())
    choice = BlockChoice("body", ("features.3", "features.4"), operations)
    return net, BlockSpace((choice,))


def test_expansions_make_grids_too_and_tied_places_share_a_window():
    net, space = _tied()
    (grid,) = hidden_grids(net, space["body"])
    assert grid.operations == (1, 2, 0)
    assert grid.widths == ((80, 80), (120, 120), (240, 240))
    supernet = WindowedSupernet(net, space, seed=0).double().eval()
    assert supernet.alive["body"] == (1, 0)
    supernet.move("body", grid, up=True)
    assert supernet.alive["body"] == (2, 0)
    assert {p.window for p in supernet.paths("body", grid)} == {supernet.window("body", grid)}
    for name in ("middle", "wide"):
        supernet.fix({"body": name})
        assert torch.equal(supernet(_x()), supernet.derive(net.double(), {"body": name})(_x()))


def test_any_width_that_is_left_is_derived_as_the_slice_that_runs(made):
    net, supernet = made
    supernet.eval()
    net = net.double()
    base = {c.name: KEEP for c in supernet.space}
    for name in ("features.1", "features.2", "features.3"):
        for grid in supernet.grids[name]:
            for position, i in enumerate(grid.operations):
                architecture = {**base, name: supernet.space[name].operations[i].name}
                derived = supernet.derive(net, architecture).eval()
                built = replay(net, supernet.space.edits(architecture)).state_dict()
                assert {n: v.shape for n, v in derived.state_dict().items()} == {
                    n: v.shape for n, v in built.items()
                }
                alone = nn.Module()
                alone.stage = derived.get_submodule(name)
                operation = supernet.operation(name)
                path = operation.candidates[supernet.grids[name].index(grid)]
                x = torch.randn(2, 16 if name != "features.3" else 40, 4, 4, dtype=torch.float64)
                if grid.windowed:
                    path.window = type(path.window)(position, position, 0, len(grid.operations))
                assert torch.equal(path(x), alone.stage(x))


def test_the_derived_network_is_what_the_fixed_supernet_computes_and_keep_is_the_original(made):
    net, supernet = made
    supernet.eval()
    net = net.double()
    for name in list(supernet.grids):  # until the original's width is a side everywhere
        for grid in supernet.grids[name]:
            keep = supernet.space[name].operations[0].name == KEEP and 0 in grid.operations
            while keep and 0 not in [grid.operations[s] for s in supernet.window(name, grid).sides]:
                position = grid.operations.index(0)
                window = supernet.window(name, grid)
                supernet.move(name, grid, up=2 * position > window.lo + window.hi)
    kept = {c.name: KEEP for c in supernet.space}
    supernet.fix(kept)
    assert torch.allclose(supernet.derive(net, kept).eval()(_x()), net(_x()), atol=1e-12)
    assert torch.allclose(supernet(_x()), net(_x()), atol=1e-12)
    likely = supernet.most_probable()
    supernet.fix(likely)
    assert torch.allclose(supernet(_x()), supernet.derive(net, likely).eval()(_x()), atol=1e-12)


def test_probabilities_are_zero_outside_of_the_windows_and_a_move_leaves_the_rest(made):
    _, supernet = made
    name = "features.3"
    grid = next(g for g in supernet.grids[name] if 0 in g.operations)
    with torch.no_grad():
        supernet.logits(name).copy_(torch.linspace(-1, 1, len(supernet.alive[name])))
    index = [c.name for c in supernet.space].index(name)

    def p():
        return supernet.probabilities()[index].detach()

    for up in (True, False, True):
        before, window = p(), supernet.window(name, grid)
        inside = {
            g.operations[s] for g in supernet.grids[name] for s in supernet.window(name, g).sides
        }
        assert {i for i, v in enumerate(before) if v > 0} == inside
        assert float(before.sum()) == pytest.approx(1.0)
        if window.settled:
            break
        mass = float(before[list(grid.operations)].sum())
        supernet.move(name, grid, up)
        after = p()
        others = [i for i in range(len(after)) if i not in grid.operations]
        assert torch.allclose(after[others], before[others], atol=1e-7)
        sides = [float(after[grid.operations[s]]) for s in supernet.window(name, grid).sides]
        assert sides == pytest.approx([mass / len(sides)] * len(sides), abs=1e-7)
        assert supernet.masses(name)[supernet.grids[name].index(grid)] == pytest.approx(
            mass, abs=1e-7
        )
    else:
        raise AssertionError("three moves settle a window of four widths")


def test_a_mixture_of_all_sides_is_the_sum_of_single_operations(made):
    _, supernet = made
    supernet.eval()
    name = "features.3"
    operation = supernet.operation(name)
    mixture = supernet.draw(GumbelSoftmax(), 1.0, generator(0))[name]
    x = torch.randn(2, 40, 4, 4, dtype=torch.float64)
    got = operation(x)
    want = 0.0
    for i, weight in zip(supernet.alive[name], mixture.weights):
        supernet.fix({name: supernet.space[name].operations[i].name})
        want = want + weight.double() * operation(x)
    assert torch.allclose(got, want, atol=1e-12)
    supernet.draw(Fixed(), 1.0, generator(0))
    assert torch.isfinite(operation(x)).all()
    supernet.draw(BinaryGates(2), 1.0, generator(0))
    with pytest.raises(ChipfitError, match="gates"):
        operation(x)


def test_what_was_moved_and_dropped_is_made_again_from_its_structure(made):
    net, supernet = made
    name = "features.3"
    grids = supernet.grids[name]
    supernet.move(name, next(g for g in grids if 0 in g.operations), up=True)
    supernet.drop(name, [g for g in grids if not g.windowed])
    skip = [o.name for o in supernet.space["features.4"].operations][-1]
    supernet.prune("features.4", [skip])
    assert skip == "skip" and supernet.most_probable()["features.4"] == "skip"
    other = WindowedSupernet(_net().double(), supernet.space, seed=5).double()
    import json

    other.restructure(json.loads(json.dumps(supernet.structure())))
    assert other.alive == supernet.alive and other.structure() == supernet.structure()
    other.load_state_dict(supernet.state_dict())
    for one in (supernet, other):
        one.eval().draw(Softmax(), 1.0, generator(0))
    assert torch.equal(supernet(_x()), other(_x()))
    with pytest.raises(BadInput):
        supernet.drop(name, supernet.grids[name])
    with pytest.raises(BadInput):
        supernet.derive(net, {**supernet.most_probable(), name: "skip"})


def test_without_grids_it_is_the_plain_supernet(toy_net):
    net = toy_net()
    space = BlockSpace(
        tuple(
            BlockChoice(
                c.name,
                c.places,
                tuple(o for o in c.operations if o.name in (KEEP, "skip", "k3_e1")),
            )
            for c in net.block_space
        )
    )
    x = torch.randn(2, 1, 8, 8)
    found = []
    for kind in (Supernet, WindowedSupernet):
        supernet = kind(net, space, seed=2).eval()
        supernet.draw(GumbelSoftmax(), 1.0, generator(1))
        found.append((supernet(x), supernet.most_probable(), supernet.alive))
    assert torch.equal(found[0][0], found[1][0]) and found[0][1:] == found[1][1:]


def test_a_network_without_such_a_place_is_refused():
    swaps = [Swap("no.such.place", "inverted_residual", 8, 8, 1, {"hidden": h}) for h in (16, 24)]
    operations = (Operation(KEEP), *(Operation(f"h{i}", (s,)) for i, s in enumerate(swaps)))
    space = BlockSpace((BlockChoice("c", ("no.such.place",), operations),))
    with pytest.raises(BadInput, match="no.such.place"):
        WindowedSupernet(_net(), space)
