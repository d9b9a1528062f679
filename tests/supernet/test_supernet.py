import pytest
import torch

from chipfit.errors import BadInput, ChipfitError
from chipfit.rewrite.replay import replay
from chipfit.space.blocks import space_of
from chipfit.supernet.mixture import BinaryGates, Fixed, GumbelSoftmax, OneHot, Softmax
from chipfit.supernet.supernet import Supernet
from chipfit.train.randomness import generator


@pytest.fixture
def made(toy_net):
    torch.manual_seed(0)
    net = toy_net().double().eval()
    return net, Supernet(net, space_of(net), seed=1)


def test_a_supernet_at_one_architecture_is_the_derived_network(made):
    net, supernet = made
    supernet.eval()
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    for choice in supernet.space:
        for operation in choice.operations:
            architecture = {c.name: c.operations[0].name for c in supernet.space}
            architecture[choice.name] = operation.name
            supernet.fix(architecture)
            derived = supernet.derive(net, architecture).eval()
            assert torch.equal(supernet(x), derived(x))
            built = replay(net, supernet.space.edits(architecture))
            assert {n: v.shape for n, v in built.state_dict().items()} == {
                n: v.shape for n, v in derived.state_dict().items()
            }


def test_keeping_everything_is_the_original(made):
    net, supernet = made
    supernet.eval().fix({c.name: "keep" for c in supernet.space})
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    assert torch.equal(supernet(x), net(x))


def test_a_soft_mixture_is_the_weighted_sum_and_the_cold_limit_one_candidate(made):
    _, supernet = made
    supernet.eval()
    place = supernet.space.choices[0].places[0]
    operation = supernet.operation(place)
    with torch.no_grad():
        supernet.logits(supernet.space.choices[0].name).copy_(
            torch.tensor([0.3, -1.0, 2.0, 0.1][: len(operation.candidates)])
        )
    mixtures = supernet.draw(Softmax(), 1.0, generator(0))
    channels = next(p for p in operation.candidates[0].parameters()).shape[1]
    x = torch.randn(1, channels, 4, 4, dtype=torch.float64)
    weights = mixtures[supernet.space.choices[0].name].weights
    want = sum(w.double() * c(x) for w, c in zip(weights, operation.candidates))
    assert torch.allclose(operation(x), want, atol=1e-12)
    supernet.draw(Softmax(), 1e-4, generator(0))
    cold = operation(x)
    supernet.draw(Fixed(), 1.0, generator(0))
    assert torch.allclose(cold, operation(x), atol=1e-12)


def test_pruning_a_candidate_of_probability_zero_changes_nothing(made, toy_net):
    _, supernet = made
    supernet.eval()
    choice = supernet.space.choices[0]
    with torch.no_grad():
        supernet.logits(choice.name)[1] = -1e9
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    supernet.draw(Softmax(), 1.0, generator(0))
    before, p = supernet(x), supernet.probabilities()[0]
    supernet.prune(
        choice.name, [o.name for o in choice.operations if o.name != choice.operations[1].name]
    )
    supernet.draw(Softmax(), 1.0, generator(0))
    assert torch.allclose(supernet(x), before, atol=1e-12)
    assert torch.allclose(supernet.probabilities()[0], p, atol=1e-12)
    assert float(supernet.probabilities()[0].detach().sum()) == pytest.approx(1.0)
    with pytest.raises(BadInput):
        supernet.fix({choice.name: choice.operations[1].name})
    again = Supernet(toy_net().double(), supernet.space, seed=1)
    again.restructure(supernet.structure())
    again.load_state_dict(supernet.state_dict())


@pytest.mark.parametrize(
    "relaxation", [OneHot(), OneHot(uniform=False), BinaryGates(2), BinaryGates(0)]
)
def test_only_the_active_path_runs_forward(made, relaxation):
    _, supernet = made
    supernet.train()
    ran = []
    for choice in supernet.space:
        operation = supernet.operation(choice.places[0])
        for i, candidate in enumerate(operation.candidates):
            candidate.register_forward_hook(lambda *_, key=(choice.name, i): ran.append(key))
    mixtures = supernet.draw(relaxation, 1.0, generator(3))
    supernet(torch.randn(4, 1, 8, 8, dtype=torch.float64))
    assert ran == [(c.name, mixtures[c.name].active[0]) for c in supernet.space]


def test_binary_gates_give_the_gradient_of_the_paper(made):
    """dL/da_i = sum_j dL/dg_j p_j (1[i=j] - p_i), with dL/dg_j by finite differences."""
    _, supernet = made
    supernet.eval()  # running statistics: paths are then plain functions
    choice = supernet.space.choices[0]
    operation = supernet.operation(choice.places[0])
    with torch.no_grad():
        supernet.logits(choice.name).copy_(torch.linspace(-0.5, 0.7, len(choice.operations)))
    x = torch.randn(
        2, next(operation.candidates[0].parameters()).shape[1], 4, 4, dtype=torch.float64
    )
    mixture = BinaryGates(0)(supernet.logits(choice.name), 1.0, generator(5))
    operation.mixture = mixture
    loss = operation(x).square().sum()
    loss.backward()
    got = supernet.logits(choice.name).grad.double()
    with torch.no_grad():
        outputs = [c(x) for c in operation.candidates]
        active, step = mixture.active[0], 1e-6

        def at(gates):
            return sum(g * o for g, o in zip(gates, outputs)).square().sum()

        start = [1.0 if i == active else 0.0 for i in range(len(outputs))]
        slopes = []
        for j in range(len(outputs)):
            up, down = list(start), list(start)
            up[j] += step
            down[j] -= step
            slopes.append((at(up) - at(down)) / (2 * step))
        p = torch.softmax(supernet.logits(choice.name).double(), 0)
        want = torch.stack(
            [
                sum(slopes[j] * p[j] * (float(i == j) - p[i]) for j in range(len(p)))
                for i in range(len(p))
            ]
        )
    assert torch.allclose(got, want, rtol=1e-4, atol=1e-6 * float(want.abs().max()))


def test_compared_paths_leave_their_running_statistics_alone(made):
    _, supernet = made
    supernet.train()
    mixtures = supernet.draw(BinaryGates(0), 1.0, generator(1))
    before = {n: v.clone() for n, v in supernet.state_dict().items() if "running" in n}
    supernet(torch.randn(4, 1, 8, 8, dtype=torch.float64)).square().sum().backward()
    for choice in supernet.space:
        active = mixtures[choice.name].active[0]
        inside = f"net.{choice.places[0]}.candidates."
        for n, v in supernet.state_dict().items():
            if n in before and n.startswith(inside):
                own = n.startswith(f"{inside}{active}.")
                assert torch.equal(v, before[n]) != own


def test_two_paths_are_renormalised_and_their_gradients_cancel():
    logits = torch.nn.Parameter(torch.tensor([0.2, 1.0, -0.4, 0.1]))
    mixture = BinaryGates(2)(logits, 1.0, generator(2))
    assert len(mixture.compared) == 2 and mixture.active[0] in mixture.compared
    assert float(mixture.weights.detach().sum()) == pytest.approx(1.0)
    (mixture.weights * torch.tensor([3.0, -1.0])).sum().backward()
    outside = [i for i in range(4) if i not in mixture.compared]
    assert float(logits.grad.sum()) == pytest.approx(0.0, abs=1e-6)
    assert logits.grad[outside].abs().sum() == 0


def test_samples_follow_the_probabilities():
    logits = torch.tensor([0.0, 1.0, 2.0])
    p = torch.softmax(logits, 0)
    for relaxation in (OneHot(uniform=False), BinaryGates(0), BinaryGates(2)):
        counts = torch.zeros(3)
        for seed in range(3000):
            counts[relaxation(logits, 1.0, generator(seed)).active[0]] += 1
        if relaxation != BinaryGates(2):
            assert torch.allclose(counts / 3000, p, atol=0.03)
        assert counts.argmax() == 2
    even = torch.zeros(3)
    for seed in range(3000):
        even[OneHot()(logits, 1.0, generator(seed)).active[0]] += 1
    assert torch.allclose(even / 3000, torch.full((3,), 1 / 3), atol=0.03)


def test_hard_gumbel_weights_are_one_hot_with_a_gradient():
    logits = torch.nn.Parameter(torch.tensor([0.0, 1.0, 2.0]))
    mixture = GumbelSoftmax(hard=True)(logits, 0.5, generator(0))
    assert sorted(mixture.weights.detach().tolist()) == pytest.approx([0, 0, 1])
    mixture.weights[0].backward()
    assert logits.grad.abs().sum() > 0


def test_equal_seeds_make_equal_supernets_and_mistakes_are_named(made):
    net, supernet = made
    other = Supernet(net, supernet.space, seed=1)
    assert all(torch.equal(v, other.state_dict()[n]) for n, v in supernet.state_dict().items())
    third = Supernet(net, supernet.space, seed=2)
    assert any(not torch.equal(v, third.state_dict()[n]) for n, v in supernet.state_dict().items())
    with pytest.raises(ChipfitError, match="draw"):
        supernet(torch.randn(1, 1, 8, 8, dtype=torch.float64))
    with pytest.raises(BadInput):
        supernet.prune(supernet.space.choices[0].name, [])
    with pytest.raises(BadInput):
        supernet.derive(net, {"features.3": "none of these"})
