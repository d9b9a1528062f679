import math

import pytest
import torch

from chipfit.errors import BadInput
from chipfit.supernet.top_k import TopKGates, logistic_noise, top_k_mask, with_floor
from chipfit.train.randomness import generator

LAYERS = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)]
FLOOR = [2, 5, 8, 11]


def test_exactly_k_gates_are_open_and_they_are_the_highest():
    scores = torch.randn(24, generator=generator(0))
    for count in range(25):
        mask = top_k_mask(scores, count)
        assert mask.sum() == count
        assert set(mask.tolist()) <= {0.0, 1.0}
        if 0 < count < 24:
            assert scores[mask == 1].min() > scores[mask == 0].max()


def test_equal_scores_open_the_first_gates():
    assert top_k_mask(torch.zeros(6), 2).tolist() == [1, 1, 0, 0, 0, 0]


def test_a_starved_layer_gets_its_floor_gate_and_others_stay():
    mask = top_k_mask(torch.tensor([3.0, 2.0, 1.0, 0, 0, 0, 0, 0.5, 0, 0, 0, 0]), 4)
    assert with_floor(mask, LAYERS, FLOOR).tolist() == [1, 1, 1, 0, 0, 1, 0, 1, 0, 0, 0, 1]
    full = torch.ones(12)
    assert torch.equal(with_floor(full, LAYERS, FLOOR), full)


@pytest.mark.parametrize("count", [1, 3, 7, 12])
def test_every_draw_has_k_open_gates_and_no_layer_is_empty(count):
    gates, logits = TopKGates(LAYERS, FLOOR, count), torch.zeros(12)
    for step in range(50):
        value = gates.draw(logits, generator(0, step))
        assert set(value.tolist()) <= {0.0, 1.0}, "exact, so that closed branches can be left out"
        starved = sum(1 for own, f in zip(LAYERS, FLOOR) if value[list(own)].sum() == value[f] == 1)
        assert count <= value.sum() <= count + starved
        assert all(value[list(own)].any() for own in LAYERS)


def test_the_gradient_is_that_of_the_sigmoid_of_the_noisy_scores():
    logits = torch.randn(12, generator=generator(1), dtype=torch.float64).requires_grad_()
    factors = torch.randn(12, generator=generator(2), dtype=torch.float64)
    gates = TopKGates(LAYERS, FLOOR, 5).draw(logits, generator(3))
    (gates * factors).sum().backward()
    noise = logistic_noise(logits.detach(), generator(3))
    step = 1e-6
    for i in range(12):
        ends = [torch.sigmoid(logits.detach()[i] + sign * step + noise[i]) for sign in (1, -1)]
        slope = factors[i] * (ends[0] - ends[1]) / (2 * step)
        assert float(logits.grad[i]) == pytest.approx(float(slope), rel=1e-6)


def test_noise_is_logistic():
    noise = logistic_noise(torch.zeros(200_000, dtype=torch.float64), generator(0))
    assert abs(float(noise.mean())) < 0.02
    assert float(noise.var()) == pytest.approx(math.pi**2 / 3, rel=0.02)
    for value in (-3.0, -1.0, 0.5, 2.0):
        expected = 1 / (1 + math.exp(-value))
        assert float((noise <= value).double().mean()) == pytest.approx(expected, abs=0.004)


def test_equal_logits_open_all_gates_equally_often():
    gates = TopKGates([tuple(range(12))], [0], 4)
    counts = sum(gates.draw(torch.zeros(12), generator(5, step)) for step in range(3000))
    # Each opens with probability 1/3; 5 deviations of a binomial count are 129.
    assert (counts - 1000).abs().max() < 129


def test_draws_depend_on_the_generator_alone():
    gates, logits = TopKGates(LAYERS, FLOOR, 5), torch.zeros(12)
    torch.manual_seed(1)
    first = gates.draw(logits, generator(7))
    torch.manual_seed(2)
    assert torch.equal(gates.draw(logits, generator(7)), first)
    assert any(not torch.equal(gates.draw(logits, generator(s)), first) for s in range(5))
    fixed = gates.fixed(torch.arange(12.0).requires_grad_())
    assert not fixed.requires_grad
    assert fixed.tolist() == [0, 0, 1, 0, 0, 1, 0, 1, 1, 1, 1, 1]


def test_impossible_numbers_are_refused():
    for count in (0, 13):
        with pytest.raises(BadInput, match=str(count)):
            TopKGates(LAYERS, FLOOR, count)
    with pytest.raises(BadInput, match="3 of 2 gates"):
        top_k_mask(torch.zeros(2), 3)
