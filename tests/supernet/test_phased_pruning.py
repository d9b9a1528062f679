import numpy as np
import torch

import chipfit as cf
from chipfit.supernet.loop import search_supernet
from chipfit.supernet.phased_pruning import (
    PhasedPruning,
    Pruning,
    operation_shares,
    prune,
    surviving,
)
from chipfit.supernet.pressure import Pressure
from chipfit.supernet.search_state import LoopSettings, SearchState
from chipfit.supernet.supernet import Supernet


def test_shares_and_survivors():
    rows = [(0, 1), (0, 2), (0, 2), (1, 2)]
    shares = operation_shares(rows, [3, 4])
    assert shares[0].tolist() == [0.75, 0.25, 0.0]
    assert shares[1].tolist() == [0.0, 0.25, 0.75, 0.0]
    assert surviving(shares, 0.25, (0, 2)) == [[0], [2]]
    assert surviving(shares, 0.25, (1, 2)) == [[0, 1], [2]]  # the best one's stays
    assert surviving(shares, 0.0, (0, 2)) == [[0, 1], [1, 2]]


def test_after_pruning_probabilities_are_the_shares(toy_net):
    net = toy_net()
    supernet = Supernet(net, net.block_space, seed=0)
    sizes = [len(c.operations) for c in supernet.space]
    shares = [np.arange(size) / sum(range(size)) for size in sizes]
    kept = [list(range(1, size)) for size in sizes]
    prune(supernet, kept, shares)
    for share, p in zip(shares, supernet.probabilities(), strict=True):
        assert np.allclose(p.detach().numpy(), share, atol=1e-7)


def test_phases_have_their_lengths_and_logits_no_step(toy_net):
    torch.manual_seed(0)
    net, asked = toy_net(), []
    supernet = Supernet(net, net.block_space, seed=0)
    settings = LoopSettings(12, 4, every=12, warmup=0.5)
    task = cf.tasks.classification("digits")
    state = SearchState(supernet, task, Pressure("none", {}, {}), settings, 0)

    def decide(state, phase):
        asked.append((phase, state.step + 1))
        if phase == 2:
            return None
        sizes = [len(c.operations) for c in supernet.space]
        shares = [np.eye(size)[0] * 0.75 + np.eye(size)[1] * 0.25 for size in sizes]
        return Pruning([[0, 1]] * len(sizes), shares)

    search_supernet(state, PhasedPruning((3.0, 2.0, 1.0), decide), (task, task))
    assert asked == [(1, 6), (2, 10)]
    assert "val_loss" not in state.losses
    for p in supernet.probabilities():
        assert np.allclose(p[:2].detach().numpy(), [0.75, 0.25])
        assert float(p[2:].detach().sum()) == 0.0
    for choice in supernet.space:
        place = supernet.operation(choice.places[0])
        assert len(place.candidates) == 2 and place.mixture.weights is None
