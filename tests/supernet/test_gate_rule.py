import pytest
import torch

import chipfit as cf
from chipfit.space.blocks import space_of
from chipfit.supernet.gate_rule import (
    GateRule,
    compared_probabilities,
    computes_nothing,
    restore_others,
)
from chipfit.supernet.mixture import BinaryGates
from chipfit.supernet.pressure import Pressure
from chipfit.supernet.search_state import LoopSettings, SearchState
from chipfit.supernet.supernet import Supernet
from chipfit.train.randomness import generator


@pytest.fixture(scope="module")
def task():
    return cf.tasks.classification("digits")


def started(toy_net, task, penalty="additive", **settings):
    torch.manual_seed(0)
    net = toy_net()
    supernet = Supernet(net, space_of(net), seed=1).train()
    pressure = Pressure(
        penalty,
        {"macs": lambda p: sum((own * torch.arange(1.0, len(own) + 1)).sum() for own in p)},
        {"macs": 3.0},
    )
    return SearchState(supernet, task, pressure, LoopSettings(20, 16, **settings), 3)


def batches(task):
    return list(task.train_batches(16, 0, 0))[:6]


def test_the_rescaling_leaves_the_probabilities_of_all_other_paths_alone():
    torch.manual_seed(0)
    for compared in [(0, 3), (1, 2), (0, 2, 4)]:
        before = torch.randn(5, dtype=torch.float64)
        logits = before + torch.randn(5, dtype=torch.float64)  # whatever an optimiser did
        step = logits.clone()
        restore_others(logits, before, compared)
        p, old = torch.softmax(logits, 0), torch.softmax(before, 0)
        others = [i for i in range(5) if i not in compared]
        assert torch.allclose(p[others], old[others], rtol=1e-14, atol=0)
        assert torch.equal(logits[others], before[others])
        assert float(p[list(compared)].sum()) == pytest.approx(float(old[list(compared)].sum()))
        odds = [torch.softmax(v[list(compared)], 0) for v in (logits, step)]
        assert torch.allclose(odds[0], odds[1], rtol=1e-13)


def test_where_all_are_compared_there_is_nothing_to_restore():
    logits = torch.tensor([1.0, 2.0])
    restore_others(logits, torch.zeros(2), (0, 1))
    assert logits.tolist() == [1.0, 2.0]


def test_the_expected_cost_is_exact_and_its_gradient_that_of_the_pair(toy_net, task):
    supernet = started(toy_net, task).supernet.double()
    with torch.no_grad():
        for own in supernet.architecture_parameters():
            own.copy_(torch.linspace(-1, 1, len(own)))
    drawn = supernet.draw(BinaryGates(2), 1.0, generator(0))
    found = compared_probabilities(supernet, drawn)
    for choice, p, want in zip(supernet.space, found, supernet.probabilities(), strict=True):
        assert torch.allclose(p, want, rtol=1e-14)
        prices = torch.arange(len(p), dtype=torch.float64) ** 2
        i, j = drawn[choice.name].compared
        q = torch.softmax(supernet.logits(choice.name).detach()[[i, j]], 0)
        (grad,) = torch.autograd.grad((p * prices).sum(), supernet.logits(choice.name))
        wanted = torch.zeros(len(p), dtype=torch.float64)
        wanted[i] = q[0] * q[1] * (prices[i] - prices[j])
        wanted[j] = -wanted[i]
        assert torch.allclose(grad, wanted, rtol=1e-12)


def test_with_all_gates_the_gradient_is_that_of_the_exact_expectation(toy_net, task):
    supernet = started(toy_net, task).supernet.double()
    drawn = supernet.draw(BinaryGates(0), 1.0, generator(0))
    logits = supernet.architecture_parameters()
    prices = torch.tensor([3.0, 0.5, 1.0, 7.0], dtype=torch.float64)
    gradients = [
        torch.autograd.grad(sum((p * prices[: len(p)]).sum() for p in found), logits)
        for found in (compared_probabilities(supernet, drawn), supernet.probabilities())
    ]
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_moves_the_odds_of_the_sampled_pair_alone(toy_net, task, momentum):
    state = started(toy_net, task, architecture_betas=(momentum, 0.999))
    rule, moved = GateRule(2), 0
    for step, batch in enumerate(batches(task)):
        state.step = step
        before = [p.detach() for p in state.supernet.probabilities()]
        rule.architecture_step(state, batch)
        after = [p.detach() for p in state.supernet.probabilities()]
        for choice, old, new in zip(state.supernet.space, before, after, strict=True):
            mixture = state.supernet.operation(choice.places[0]).mixture
            others = [i for i in range(len(old)) if i not in mixture.compared]
            assert torch.allclose(new[others], old[others], rtol=1e-6)  # float32 logits
            pair = list(mixture.compared)
            if computes_nothing(state.supernet, choice.name, mixture.active[0]):
                assert torch.equal(old, new)
            else:
                moved += 1
                assert float((new[pair] - old[pair]).abs().min()) > 1e-4
    assert moved > 6


def test_a_choice_whose_active_path_computes_nothing_is_left_alone(toy_net, task):
    state = started(toy_net, task)
    supernet = state.supernet
    skipping = [c for c in supernet.space if any(o.name == "skip" for o in c.operations)]
    assert len(skipping) > 0
    with torch.no_grad():
        for choice in skipping:
            supernet.logits(choice.name)[-1] = 30.0  # drawn with certainty
    before = {c.name: supernet.logits(c.name).detach().clone() for c in supernet.space}
    GateRule(0).architecture_step(state, batches(task)[0])
    for choice in supernet.space:
        same = torch.equal(before[choice.name], supernet.logits(choice.name))
        assert same == (choice in skipping)


def test_weights_of_paths_that_were_not_sampled_stay_despite_momentum_and_decay(toy_net, task):
    state = started(toy_net, task, momentum=0.9, weight_decay=0.1)
    rule, stayed = GateRule(2), 0
    ran = {c.name: set() for c in state.supernet.space}
    for step, batch in enumerate(batches(task)):
        state.step = step
        before = {n: v.detach().clone() for n, v in state.supernet.named_parameters()}
        rule.architecture_step(state, batch)
        assert all(torch.equal(v, before[n]) for n, v in state.supernet.net.named_parameters("net"))
        rule.weight_step(state, batch)
        after = dict(state.supernet.named_parameters())
        for choice in state.supernet.space:
            active = state.supernet.operation(choice.places[0]).mixture.active[0]
            for i in range(len(choice.operations)):
                names = [
                    n for n in after if n.startswith(f"net.{choice.places[0]}.candidates.{i}.")
                ]
                changed = [n for n in names if not torch.equal(after[n], before[n])]
                assert bool(changed) == (i == active and bool(names))
                # It has momentum from an earlier step, and stays all the same.
                stayed += i != active and i in ran[choice.name]
            ran[choice.name].add(active)
    assert stayed > 0


def test_zero_is_what_drops_a_block_or_an_edge(toy_net, task):
    supernet = started(toy_net, task).supernet
    for choice in supernet.space:
        names = [o.name for o in choice.operations]
        found = [computes_nothing(supernet, choice.name, i) for i in range(len(names))]
        assert found == [name == "skip" for name in names]
