import torch
from torch import nn

from chipfit.supernet.memory import saved_activation_bytes


def test_a_product_keeps_both_factors_and_a_sum_none():
    a = torch.randn(10, requires_grad=True)
    b = torch.randn(10, requires_grad=True)
    assert saved_activation_bytes(lambda: (a * b).sum().backward()) == 2 * 10 * 4
    assert saved_activation_bytes(lambda: (a + b).sum().backward()) == 0
    assert saved_activation_bytes(lambda: (a * a).sum().backward()) == 10 * 4


def test_a_convolution_keeps_its_input_and_not_its_weight():
    conv = nn.Conv2d(3, 8, 3, bias=False)
    x = torch.randn(2, 3, 6, 6)
    assert saved_activation_bytes(lambda: conv(x).sum().backward()) == x.nbytes
    # A view of a weight is a weight.
    half = nn.functional.conv2d

    def sliced():
        half(x, conv.weight[:4]).sum().backward()

    assert saved_activation_bytes(sliced, conv) == x.nbytes
    assert saved_activation_bytes(sliced) == x.nbytes + conv.weight.nbytes


def test_slices_of_one_storage_count_once_and_a_network_layer_by_layer():
    x = torch.randn(2, 8, 4, 4, requires_grad=True)

    def both():
        (x[:, :4] ** 2).sum().backward(retain_graph=False)

    assert saved_activation_bytes(both) == x.nbytes
    net = nn.Sequential(nn.Linear(5, 7, bias=False), nn.ReLU(), nn.Linear(7, 3, bias=False))
    y = torch.randn(4, 5)
    # The input, and what the ReLU gives: both it and the second layer keep that.
    assert saved_activation_bytes(lambda: net(y).sum().backward(), net) == (4 * 5 + 4 * 7) * 4


def test_two_steps_after_each_other_need_the_larger_and_two_graphs_at_once_the_sum():
    a = torch.randn(100, requires_grad=True)
    b = torch.randn(30, requires_grad=True)

    def in_turn():
        (a * a).sum().backward()
        (b * b).sum().backward()

    def at_once():
        one, two = (a * a).sum(), (b * b).sum()
        one.backward()
        two.backward()

    assert saved_activation_bytes(in_turn) == 400
    assert saved_activation_bytes(at_once) == 520


def test_nothing_is_kept_without_gradients():
    a = torch.randn(10, requires_grad=True)
    with torch.no_grad():
        assert saved_activation_bytes(lambda: (a * a).sum()) == 0
