import pytest
import torch
from torch import nn

from chipfit.blocks.deploy import deploy
from chipfit.blocks.rep_branches import BRANCHES, RepBranches
from chipfit.errors import BadInput
from chipfit.graph.capture import trace
from chipfit.nets import create
from chipfit.rewrite import replay, rewrite_from_json
from chipfit.space.blocks import space_of
from chipfit.space.branches import BranchPlace, branch_subsets, subset_name
from chipfit.space.multi_hot import MultiHotChoice


def places_of(net):
    return [(n, m) for n, m in net.named_modules() if isinstance(m, RepBranches)]


def test_a0_has_the_layers_of_repvgg_and_the_branches_of_repnas():
    with torch.device("meta"):
        net, merged, plain = (
            create("rep_branches_a0"), create("rep_branches_a0:deploy=true"), create("repvgg_a0")
        )  # fmt: skip
    assert len(places_of(net)) == 22
    assert int(0.34 * sum(len(m.branches) for _, m in places_of(net))) == 44
    shapes = [[tuple(p.shape) for p in one.parameters()] for one in (merged, plain)]
    assert shapes[0] == shapes[1]
    # The first block of every stage halves the image, and has no identity.
    assert sum(m.identity is None for _, m in places_of(net)) == 5


def test_the_space_holds_every_subset_of_every_place():
    net = create("tiny_rep_branches", input_shape=(1, 1, 12, 12))
    space = space_of(net)
    assert [c.name for c in space] == [name for name, _ in places_of(net)]
    assert space.search_space.size == 63**7
    for choice in space:
        assert {o.name for o in choice.operations} >= {*BRANCHES, subset_name(BRANCHES)}
    edits = [space.edits(space.search_space.sample(seed)) for seed in (0, 1)]
    assert edits[0] != edits[1]
    assert [rewrite_from_json(e.to_json()) for e in edits[0]] == list(edits[0])
    ops = [
        [node.op for node in trace(replay(net, own).eval(), torch.zeros(1, 1, 12, 12)).nodes]
        for own in edits
    ]
    assert ops[0] == ops[1], "whatever the branches, the merged network is the same to a device"


def test_subsets_under_a_budget_of_the_whole_network():
    places = [BranchPlace(f"layer{n}", 8, 8, 1, BRANCHES, "relu") for n in range(7)]
    subsets = branch_subsets(places, 14, 14)
    assert all(isinstance(choice, MultiHotChoice) for choice in subsets)
    for seed in range(5):
        drawn = subsets.sample(seed)
        assert sum(map(len, drawn.values())) == 14
        assert all(drawn.values())
    assert branch_subsets(places, 42).size == 63**7


@pytest.mark.parametrize("size", [8, 28, 31, 32])
def test_tiny_is_the_same_once_merged(size):
    net = create("tiny_rep_branches", num_classes=5, input_shape=(1, 2, size, size)).double().eval()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean, -0.5, 0.5)
            nn.init.uniform_(norm.running_var, 0.3, 2.0)
    x = torch.randn(2, 2, size, size, dtype=torch.float64)
    merged = deploy(net)
    with torch.no_grad():
        torch.testing.assert_close(merged(x), net(x), rtol=1e-10, atol=1e-10)
    assert sum(isinstance(m, nn.Conv2d) for m in merged.modules()) == 7


def test_tiny_refuses_large_images():
    with pytest.raises(BadInput, match="8 to 64"):
        create("tiny_rep_branches", input_shape=(1, 1, 224, 224))
