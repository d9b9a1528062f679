# SPDX-License-Identifier: Apache-2.0
"""The rules on problems whose solutions are known exactly."""

import copy

import pytest
import torch
from torch import nn

from chipfit.errors import BadInput
from chipfit.supernet.bilevel import first_order, second_order
from chipfit.supernet.curvature import dominant_eigenvalue
from chipfit.supernet.relaxed_copies import RelaxedCopies


class Toy:
    """DARTS's example: ``Lval = a w - 2 a + 1``, ``Ltrain = (w - a)^2``, whose solution is 1."""

    def __init__(self, a=2.0, w=-2.0):
        self.a = torch.tensor(a, dtype=torch.float64, requires_grad=True)
        self.w = torch.tensor(w, dtype=torch.float64, requires_grad=True)

    def val(self):
        return self.a * self.w - 2 * self.a + 1

    def train(self):
        return (self.w - self.a) ** 2

    def descend(self, gradient, rate=0.1, steps=300):
        """Alternate: architecture by the rule, then weights on the training loss."""
        for _ in range(steps):
            (g,) = gradient()
            with torch.no_grad():
                self.a -= rate * g
            (g,) = torch.autograd.grad(self.train(), [self.w])
            with torch.no_grad():
                self.w -= 0.3 * g
        return self.a.item()


def test_first_order_ends_at_two():
    toy = Toy(a=0.5)
    assert toy.descend(lambda: first_order(toy.val, [toy.a])) == pytest.approx(2.0, abs=1e-9)


@pytest.mark.parametrize("xi", [0.1, 0.25, 0.5])
def test_second_order_ends_at_two_over_one_and_two_xi(xi):
    toy = Toy()
    end = toy.descend(lambda: second_order(toy.train, toy.val, [toy.w], [toy.a], xi))
    assert end == pytest.approx(2 / (1 + 2 * xi), abs=1e-9)


@pytest.mark.parametrize(
    ("share", "coupling", "fresh"), [(10.0, 10.0, True), (20.0, 10.0, False), (10.0, 20.0, False)]
)
def test_rarts_ends_at_its_own_optimum_near_one(share, coupling, fresh):
    toy = Toy()
    copies = RelaxedCopies([toy.w], train_weight=share, coupling=coupling, fresh=fresh)
    for _ in range(1800):
        (g,) = copies.step(toy.train, toy.val, [toy.a], 0.02)
        with torch.no_grad():
            toy.a -= 0.02 * g
    expected = 2 / (2 - 1 / (2 * share) - 1 / coupling)
    assert toy.a.item() == pytest.approx(expected, abs=1e-8)
    assert abs(expected - 1) < 0.09


def test_rarts_steps_in_gauss_seidel_order():
    toy = Toy(a=0.5, w=3.0)
    copies = RelaxedCopies([toy.w], train_weight=2.0, coupling=4.0)
    copies.step(toy.train, toy.val, [toy.a], 0.1)  # leaves y other than w
    y, w, a = float(copies.tensors()["y/0"]), toy.w.item(), 0.5
    (g,) = copies.step(toy.train, toy.val, [toy.a], 0.1)
    y_new = y - 0.1 * (a + 4.0 * (y - w))
    w_new = w - 0.1 * (2.0 * 2 * (w - a) + 4.0 * (w - y_new))
    assert float(copies.tensors()["y/0"]) == pytest.approx(y_new, abs=1e-12)
    assert toy.w.item() == pytest.approx(w_new, abs=1e-12)
    assert float(g) == pytest.approx(2.0 * -2 * (w_new - a) + y_new - 2, abs=1e-12)


class Net(nn.Module):
    """Two paths mixed by softmax, with batch norms; smooth."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.paths = nn.ModuleList(
            nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh()) for _ in range(2)
        )
        self.head = nn.Linear(4, 2)
        self.alpha = nn.Parameter(torch.tensor([0.2, -0.1]))

    def forward(self, x):
        mix = torch.softmax(self.alpha, 0)
        return self.head(sum(p * path(x) for p, path in zip(mix, self.paths, strict=True)))


class Case:
    """A network and its two losses, on a batch each."""

    def __init__(self):
        self.net = Net().double()
        self.names = [n for n, _ in self.net.named_parameters() if n != "alpha"]
        self.weights = [p for n, p in self.net.named_parameters() if n != "alpha"]
        self.x = torch.randn(2, 6, 3, dtype=torch.float64)
        self.y = torch.tensor([0, 1, 0, 1, 1, 0])
        self.losses = [lambda: self.loss(0), lambda: self.loss(1)]

    def loss(self, which, changed=()):
        outputs = torch.func.functional_call(self.net, dict(changed), (self.x[which],))
        return nn.functional.cross_entropy(outputs, self.y if which == 0 else 1 - self.y)


@pytest.fixture
def case():
    made = Case()
    return made.net, made.weights, made.losses, made


def unrolled(made, xi, momentum, velocity, decay):
    """Differentiate through the step itself."""
    grads = torch.autograd.grad(made.loss(0), made.weights, create_graph=True)
    moved = {
        n: w - xi * (momentum * v + g + share * w)
        for n, w, g, v, share in zip(made.names, made.weights, grads, velocity, decay, strict=True)
    }
    return torch.autograd.grad(made.loss(1, moved), [made.net.alpha])[0]


def test_second_order_is_the_derivative_through_an_optimiser_step(case):
    net, weights, losses, made = case
    velocity = [torch.randn_like(w) for w in weights]
    decay = [0.1 if w.ndim > 1 else 0.0 for w in weights]
    before = copy.deepcopy(net.state_dict())
    (found,) = second_order(
        *losses, weights, [net.alpha], 0.3, momentum=0.9, velocity=velocity, weight_decay=decay,
        buffers=list(net.buffers()), radius=1e-4,
    )  # fmt: skip
    assert all(torch.equal(v, before[n]) for n, v in net.state_dict().items())
    expected = unrolled(made, 0.3, 0.9, velocity, decay)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    without = torch.autograd.grad(losses[1](), [net.alpha])[0]
    assert not torch.allclose(found, without, rtol=0.05)


def test_without_a_step_second_order_is_first_order(case):
    net, weights, losses, made = case
    (second,) = second_order(*losses, weights, [net.alpha], 0.0, buffers=list(net.buffers()))
    (first,) = first_order(losses[1], [net.alpha])
    torch.testing.assert_close(second, first, rtol=1e-12, atol=1e-12)


def test_weights_that_no_validation_loss_holds_leave_the_direct_gradient():
    a = torch.ones((), requires_grad=True)
    w = torch.ones((), requires_grad=True)
    (g,) = second_order(lambda: w * a, lambda: 3 * a, [w], [a], 0.1)
    assert float(g) == 3.0


def test_copies_have_weights_and_statistics_of_their_own(case):
    net, weights, losses, made = case
    buffers = list(net.buffers())
    copies = RelaxedCopies(weights, buffers, coupling=0.5, momentum=0.9, weight_decay=0.1, clip=1.0)
    start = copy.deepcopy(net.state_dict())
    objective_calls = []

    def objective(loss):
        objective_calls.append(loss.item())
        return 2 * loss + net.alpha.sum()

    (g,) = copies.step(*losses, [net.alpha], 0.1, objective)
    own = copy.deepcopy(net.state_dict())
    with copies.exchanged():
        other = copy.deepcopy(net.state_dict())
        (of_val,) = torch.autograd.grad(losses[1](), [net.alpha])
    (of_train,) = torch.autograd.grad(losses[0](), [net.alpha])
    torch.testing.assert_close(g, 2 * (of_train + of_val) + 1)
    assert len(objective_calls) == 1
    for name in start:
        if name != "alpha" and not name.endswith("0.bias"):  # the batch norm undoes that
            assert not torch.equal(own[name], other[name]) or name.endswith("tracked")
            assert not torch.equal(own[name], start[name]), name
    # Statistics: two passes on their own batch each, and none on the other's.
    assert own["paths.0.1.num_batches_tracked"] == other["paths.0.1.num_batches_tracked"] == 2


def test_copies_continue_from_their_tensors(case):
    net, weights, losses, made = case
    results = []
    for cut in (False, True):
        again = copy.deepcopy(net)
        own = [p for n, p in again.named_parameters() if n != "alpha"]
        x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

        def loss(again=again, x=x):
            return again(x).square().mean()

        def build(again=again, own=own):
            return RelaxedCopies(own, list(again.buffers()), momentum=0.9)

        copies = build()
        for step in range(4):
            if cut and step == 2:
                kept = {n: t.clone() for n, t in copies.tensors().items()}
                copies = build()
                copies.restore_tensors(kept)
            (g,) = copies.step(loss, lambda: -loss(), [again.alpha], 0.1)
            with torch.no_grad():
                again.alpha -= 0.1 * g
        results.append(again.state_dict())
    assert all(torch.equal(results[0][n], results[1][n]) for n in results[0])


def test_couplings_that_would_swing_are_refused():
    toy = Toy()
    with pytest.raises(BadInput, match="positive"):
        RelaxedCopies([toy.w], coupling=0.0)
    with pytest.raises(BadInput, match="below 1"):
        RelaxedCopies([toy.w], coupling=20.0).step(toy.train, toy.val, [toy.a], 0.05)


def test_the_dominant_eigenvalue_of_a_quadratic_and_of_a_network(case):
    torch.manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    matrix = basis @ torch.diag(torch.tensor([-7.0, 3.0, 1.0, 0.5, 0.0]).double()) @ basis.T
    parts = [torch.randn(2, requires_grad=True, dtype=torch.float64),
             torch.randn(3, requires_grad=True, dtype=torch.float64)]  # fmt: skip

    def quadratic():
        x = torch.cat(parts)
        return 0.5 * x @ matrix @ x

    found = dominant_eigenvalue(quadratic, parts, iterations=200, tolerance=1e-12)
    assert found == pytest.approx(-7.0, rel=1e-9)
    assert dominant_eigenvalue(lambda: 3 * parts[0].sum(), parts) == 0.0
    with pytest.raises(BadInput, match="depend"):
        dominant_eigenvalue(lambda: torch.ones(()), parts)
    net, _, losses, made = case
    hessian = torch.autograd.functional.hessian(
        lambda a: made.loss(1, {"alpha": a}), net.alpha.detach().clone()
    )
    values = torch.linalg.eigvalsh(hessian)
    largest = values[values.abs().argmax()]
    found = dominant_eigenvalue(losses[1], [net.alpha], iterations=100, tolerance=1e-10)
    assert found == pytest.approx(float(largest), rel=1e-6)
