import pytest
import torch

from chipfit.errors import BadInput
from chipfit.supernet import gumbel_sigmoid, gumbel_softmax, temperature_at


@pytest.mark.parametrize("temperature", [0.2, 3.0])
def test_hard_gates_are_one_as_often_as_their_log_odds_say(temperature):
    logits = torch.tensor([-2.0, 0.0, 1.0]).double()
    noise = torch.Generator().manual_seed(0)
    drawn = torch.stack(
        [gumbel_sigmoid(logits, temperature, generator=noise) for _ in range(20000)]
    )
    assert set(drawn.round(decimals=9).unique().tolist()) == {0.0, 1.0}
    error = 4 * (0.25 / 20000) ** 0.5
    assert drawn.mean(0).tolist() == pytest.approx(torch.sigmoid(logits).tolist(), abs=error)


def test_hard_options_are_taken_as_often_as_the_softmax_says():
    logits = torch.tensor([0.0, 1.0, -1.0]).double()
    noise = torch.Generator().manual_seed(0)
    drawn = torch.stack([gumbel_softmax(logits, 0.7, generator=noise) for _ in range(20000)])
    assert torch.allclose(drawn.sum(1), torch.ones(20000).double())
    error = 4 * (0.25 / 20000) ** 0.5
    assert drawn.mean(0).tolist() == pytest.approx(torch.softmax(logits, 0).tolist(), abs=error)


@pytest.mark.parametrize("sample", [gumbel_sigmoid, gumbel_softmax])
def test_hard_samples_have_the_gradient_of_soft_ones(sample):
    gradients = []
    for hard in (True, False):
        logits = torch.tensor([0.3, -0.8, 1.1]).double().requires_grad_()
        weights = torch.tensor([1.0, 2.0, -3.0]).double()
        out = sample(logits, 0.9, hard, torch.Generator().manual_seed(3))
        (out * weights).sum().backward()
        gradients.append(logits.grad)
    assert torch.equal(*gradients)
    assert gradients[0].abs().min() > 0


def test_the_temperature_falls_by_the_same_factor():
    found = [temperature_at(i, 5, 4.0, 0.25) for i in range(5)]
    assert found == pytest.approx([4.0, 2.0, 1.0, 0.5, 0.25])
    assert temperature_at(0, 1, 2.0, 1.0) == 2.0
    with pytest.raises(BadInput, match="positive"):
        temperature_at(0, 5, 0.0, 1.0)
