import pytest
import torch

from chipfit.errors import BadInput
from chipfit.supernet.pressure import KINDS, Pressure

PRICES = torch.tensor([0.3, 0.9, 2.0], dtype=torch.float64)


def pressed(kind, unit=1.0, strength=None):
    logits = torch.nn.Parameter(torch.tensor([0.1, 0.0, 0.4], dtype=torch.float64))
    pressure = Pressure(
        kind, {"latency_ms": lambda p: (p[0] * PRICES * unit).sum()}, {"latency_ms": 0.8 * unit},
        strength,
    )  # fmt: skip
    p = [torch.softmax(logits, 0)]
    loss = (p[0] * torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64)).sum()
    value = pressure(loss, p)
    value.backward()
    return float(value.detach()), logits.grad


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1e3])
def test_the_unit_of_a_cost_changes_nothing(kind, unit):
    value, grad = pressed(kind)
    other, same = pressed(kind, unit)
    assert other == pytest.approx(value, rel=1e-9)
    assert torch.allclose(grad, same, rtol=1e-9)
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("kind", ["constraint", "multiplicative", "additive"])
def test_what_is_over_the_bound_pulls_towards_cheaper_options(kind):
    """The more it weighs, the lower the gradient step brings the expected cost."""
    _, free = pressed("none")
    _, grad = pressed(kind, strength=5.0)
    p = torch.softmax(torch.tensor([0.1, 0.0, 0.4], dtype=torch.float64), 0)
    cost_slope = p * (PRICES - (p * PRICES).sum())
    assert float((grad - free) @ cost_slope) > 0


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_multipliers_bring_an_expected_cost_to_its_bound(scale):
    logits = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    pressure = Pressure("constraint", {"macs": lambda p: (p[0] * PRICES).sum()}, {"macs": 0.8})
    optimizer = torch.optim.Adam([logits], lr=0.02, betas=(0.5, 0.999))
    losses = scale * torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64)
    for _ in range(600):
        p = [torch.softmax(logits, 0)]
        optimizer.zero_grad()
        pressure((p[0] * losses).sum(), p).backward()
        optimizer.step()
        pressure.update([torch.softmax(logits, 0)])
    p = [torch.softmax(logits, 0).detach()]
    assert pressure.expected(p)["macs"] == pytest.approx(0.8, rel=0.01)


def test_mistakes_are_named():
    with pytest.raises(BadInput, match="unknown penalty"):
        Pressure("hope", {}, {})
    with pytest.raises(BadInput):
        Pressure("additive", {"macs": lambda p: p[0].sum()}, {"macs": 0.0})
    with pytest.raises(BadInput):
        Pressure("additive", {}, {"macs": 1.0})
