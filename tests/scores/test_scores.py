# SPDX-License-Identifier: Apache-2.0
"""Every score on networks small enough to count by hand, and what all of them promise."""

import math

import pytest
import torch
from torch import nn

import chipfit as cf
from chipfit.errors import BadInput, UnknownName
from chipfit.scores import SCORES, compute
from chipfit.scores.naswot import code_kernel

NAMES = [entry.name for entry in SCORES]


def _images(count, channels=1, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, size, size, generator=generator)


def _linear(*matrices):
    """Return linear layers of these weights behind a flattening, ReLU between them."""
    layers = [nn.Flatten()]
    for matrix in matrices:
        weight = torch.tensor(matrix)
        layer = nn.Linear(*weight.shape[::-1], bias=False)
        layer.weight = nn.Parameter(weight)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_the_registry_holds_every_score():
    assert set(NAMES) == {
        "params", "macs", "non_linear_units", "nn_mass", "naswot", "synflow", "grad_norm", "snip",
        "zen",
    }  # fmt: skip
    assert all(entry.summary for entry in SCORES)
    with pytest.raises(UnknownName, match="naswt"):
        compute("naswt", nn.Identity(), _images(1))


@pytest.mark.parametrize("name", NAMES)
def test_scores_repeat_and_leave_everything_as_it_was(name):
    net = cf.nets.create("tiny_mobilenet_v2", input_shape=(1, 1, 8, 8)).train()
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    hooks = [len(module._forward_hooks) for module in net.modules()]
    images, state = _images(6), torch.random.get_rng_state()
    first = compute(name, net, images, seed=1)
    assert math.isfinite(first)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(12345)
    assert compute(name, net, images, seed=1) == first
    assert net.training
    assert all(parameter.grad is None for parameter in net.parameters())
    assert [len(module._forward_hooks) for module in net.modules()] == hooks
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[key]), key


@pytest.mark.parametrize("name", ["grad_norm", "snip", "zen"])
def test_another_seed_draws_something_else(name):
    net = cf.nets.create("tiny_mobilenet_v2", input_shape=(1, 1, 8, 8))
    assert compute(name, net, _images(6), seed=1) != compute(name, net, _images(6), seed=2)


def test_size():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    assert compute("params", net, _images(3)) == 4 * 9 + 4 + 8 + 2 * 144 + 2
    assert compute("macs", net, _images(3)) == 36 * 36 + 288


def test_synflow_counts_paths():
    # Absolute weights: the hidden units carry 3 and 4, the outputs sum to 3 * 3 + 4 * 4 = 25.
    # Each layer's sum of |w dR/dw| is R again, so that two layers give 50.
    net = _linear([[1.0, -2.0], [-3.0, 1.0]], [[2.0, -1.0], [1.0, 3.0]])
    assert compute("synflow", net, torch.randn(1, 2, 1, 1)) == pytest.approx(
        math.log(50), rel=1e-12
    )


def test_synflow_without_a_path_is_minus_infinity():
    net = _linear([[0.0, 0.0]], [[1.0], [1.0]])
    assert compute("synflow", net, torch.randn(1, 2, 1, 1)) == -math.inf


def test_synflow_does_not_saturate_and_ignores_batch_norm():
    plain = nn.Sequential(nn.Conv2d(1, 2, 8, bias=False), nn.ReLU(), nn.Flatten())
    with torch.no_grad():
        plain[0].weight.fill_(1.0)
    normed = nn.Sequential(plain[0], nn.BatchNorm2d(2), nn.ReLU6(), nn.Flatten())
    expected = math.log(2 * 64)
    assert compute("synflow", plain, _images(1)) == pytest.approx(expected, rel=1e-12)
    assert compute("synflow", normed, _images(1)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_gradient_scores_of_a_linear_classifier(seed):
    # With zero weights all classes are as likely: dL/dw = (softmax - onehot) x / N.
    images = torch.tensor([[[[1.0]], [[2.0]]]])
    net = _linear([[0.0, 0.0], [0.0, 0.0]])
    assert compute("grad_norm", net, images, seed=seed) == pytest.approx(math.sqrt(2.5), rel=1e-6)
    assert compute("snip", net, images, seed=seed) == 0
    # Equal rows keep the classes as likely: sum of |w| |p - y| |x| = 2 * 0.5 * (3 * 1 + 1 * 2).
    net = _linear([[3.0, -1.0], [3.0, -1.0]])
    assert compute("snip", net, images, seed=seed) == pytest.approx(5.0, rel=1e-6)


def test_naswot_by_hand():
    # Of four units the first image turns on 1, the second 2, the third 0, 1 and 2.
    images = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]).reshape(3, 2, 1, 1)
    net = _linear([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]], [[1.0] * 4])
    codes = torch.tensor([[0, 1, 0, 0], [0, 0, 1, 0], [1, 1, 1, 0]], dtype=torch.bool)
    kernel = torch.tensor([[4.0, 2.0, 2.0], [2.0, 4.0, 2.0], [2.0, 2.0, 4.0]], dtype=torch.float64)
    assert torch.equal(code_kernel(codes), kernel)
    assert compute("naswot", net, images) == pytest.approx(math.log(32), rel=1e-12)
    assert compute("naswot", net, images[[0, 0]]) == -math.inf


def test_naswot_names_what_it_cannot_do():
    with pytest.raises(BadInput, match="compares images"):
        compute("naswot", nn.ReLU(), _images(1))
    with pytest.raises(BadInput, match="no activation modules"):
        compute("naswot", nn.Conv2d(1, 1, 1), _images(2))


def test_zen_of_a_linear_network():
    net = nn.Conv2d(1, 3, 3, bias=False)
    images, draw = _images(5), torch.Generator().manual_seed(7)
    expected = 0.0
    for _ in range(2):
        weight = torch.randn(3, 1, 3, 3, generator=draw)
        torch.randn(5, 1, 8, 8, generator=draw)
        change = 0.01 * torch.randn(5, 1, 8, 8, generator=draw)
        moved = torch.nn.functional.conv2d(change, weight).abs().sum((1, 2, 3)).mean()
        expected += math.log(moved) / 2
    assert compute("zen", net, images, seed=7) == pytest.approx(expected, abs=1e-4)


def test_zen_undoes_batch_norm():
    # One channel: dividing by the standard deviation and adding its logarithm cancel.
    conv = nn.Conv2d(1, 1, 3, bias=False)
    images = _images(16)
    plain = compute("zen", nn.Sequential(conv), images)
    assert compute("zen", nn.Sequential(conv, nn.BatchNorm2d(1)), images) == pytest.approx(
        plain, abs=0.02
    )


def test_scores_name_what_does_not_fit():
    with pytest.raises(BadInput, match=r"not \(N, C, H, W\)"):
        compute("params", nn.Identity(), torch.zeros(3, 4))
    with pytest.raises(BadInput, match="no convolution"):
        compute("snip", nn.Flatten(), _images(2))
    with pytest.raises(BadInput, match="logits"):
        compute("grad_norm", nn.Conv2d(1, 1, 1), _images(2))
    with pytest.raises(BadInput, match="feature maps"):
        compute("zen", _linear([[1.0] * 64]), _images(2))
    with pytest.raises(BadInput, match="cannot be computed"):
        compute("synflow", nn.Linear(3, 3), _images(2))
