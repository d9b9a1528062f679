import itertools

import numpy as np
import pytest
import torch

import chipfit as cf
from chipfit.errors import BadInput
from chipfit.space.blocks import space_of
from chipfit.supernet.loop import search_supernet
from chipfit.supernet.policy_rule import PolicyRule, policy_loss
from chipfit.supernet.pressure import Pressure
from chipfit.supernet.search_state import LoopSettings, SearchState
from chipfit.supernet.supernet import Supernet


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def task():
    return cf.tasks.classification("digits")


def started(toy_net, task, steps=20, **settings):
    torch.manual_seed(0)
    net = toy_net()
    supernet = Supernet(net, space_of(net), seed=1).train()
    return SearchState(
        supernet, task, Pressure("none", {}, {}),
        LoopSettings(steps, 16, architecture_betas=(0.0, 0.999), **settings), 3,
    )  # fmt: skip


def reward(losses, rows):
    return np.exp(-losses) * (1.0 + rows.sum(1))


def test_the_expected_gradient_is_that_of_the_expected_reward():
    logits = [
        torch.nn.Parameter(torch.tensor(v, dtype=torch.float64))
        for v in ([0.3, -0.2, 1.0], [0.5, 0.1], [-1.0, 0.0, 0.2])
    ]
    rows = list(itertools.product(range(3), range(2), range(3)))
    rewards = torch.randn(len(rows), dtype=torch.float64, generator=torch.manual_seed(0))

    def likelihood(row):
        return torch.stack([torch.softmax(p, 0)[i] for p, i in zip(logits, row)]).prod()

    expected = sum(likelihood(row) * r for row, r in zip(rows, rewards))
    want = [-g for g in torch.autograd.grad(expected, logits)]
    for baseline in (0.0, 0.7):
        got = [torch.zeros_like(p) for p in logits]
        for row, r in zip(rows, rewards):
            loss = policy_loss(logits, torch.tensor([row]), (r - baseline)[None])
            for total, g in zip(got, torch.autograd.grad(loss, logits)):
                total += likelihood(row).detach() * g
        assert all(torch.allclose(a, b, atol=1e-14) for a, b in zip(got, want))


def test_the_loss_is_the_mean_over_samples():
    logits = [torch.zeros(2, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)]
    rows, advantages = torch.tensor([[0, 1], [1, 2]]), torch.tensor([1.0, 3.0])
    assert float(policy_loss(logits, rows, advantages)) == pytest.approx(2 * np.log(6))


def test_a_step_moves_no_weight_and_no_running_statistic(toy_net, task):
    state = started(toy_net, task)
    before = {n: v.clone() for n, v in state.supernet.net.state_dict().items()}
    logits = [p.detach().clone() for p in state.supernet.architecture_parameters()]
    batch = next(iter(task.train_batches(16, 0, 0)))
    loss = PolicyRule(reward, samples=3).architecture_step(state, batch)
    assert 0 < loss < 10
    assert all(torch.equal(v, before[n]) for n, v in state.supernet.net.state_dict().items())
    now = state.supernet.architecture_parameters()
    assert all(not torch.equal(a, b) for a, b in zip(logits, now))


def test_the_policy_follows_the_reward_to_options_of_the_whole_space(toy_net, task):
    """Only the option of index 2 is rewarded, also where pruning has moved it."""
    state = started(toy_net, task, architecture_rate=0.1)
    choice = state.supernet.space.choices[0]
    state.supernet.prune(choice.name, [o.name for o in choice.operations[1:]])
    state.rebuild_optimizers()
    rule = PolicyRule(lambda losses, rows: (rows[:, 0] == 2).astype(float), samples=6)
    batch = next(iter(task.train_batches(4, 0, 0)))
    for state.step in range(25):
        rule.architecture_step(state, batch)
    found = state.supernet.probabilities()[0].detach()
    assert float(found[2]) > 0.8
    assert float(found[0]) == 0.0
    assert rule.baseline > 0.5


def test_equal_rewards_teach_nothing(toy_net, task):
    state = started(toy_net, task)
    before = [p.detach().clone() for p in state.supernet.architecture_parameters()]
    rule = PolicyRule(lambda losses, rows: np.full(len(rows), 0.25), samples=2)
    rule.architecture_step(state, next(iter(task.train_batches(4, 0, 0))))
    after = state.supernet.architecture_parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after))


def test_a_killed_search_continues_with_its_baseline(toy_net, task, tmp_path):
    def run(path=None, stop=None):
        state = started(toy_net, task, 6, warmup=0.1, checkpoint_steps=2, record_steps=1)

        def record(state, seconds):
            if stop is not None and state.step == stop:
                raise Interrupted

        rule = PolicyRule(reward, samples=2, decay=0.5)
        search_supernet(state, rule, task.halves(0), checkpoint=path, on_record=record)
        return state, rule

    whole, rule = run()
    path = tmp_path / "search.safetensors"
    with pytest.raises(Interrupted):
        run(path, stop=5)
    again, same = run(path)
    assert same.baseline == rule.baseline
    for n, v in whole.supernet.state_dict().items():
        assert torch.equal(v, again.supernet.state_dict()[n]), n


def test_one_sample_is_refused():
    with pytest.raises(BadInput, match="two or more"):
        PolicyRule(reward, samples=1)
