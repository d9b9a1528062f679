# SPDX-License-Identifier: Apache-2.0
"""Parameters and MACs of every network of the zoo beside what its authors published."""

import pytest
import torch
from torch import nn

from chipfit.nets import NETS, create

#: Parameters and MACs in millions; then as published, in millions and thousands of millions, with
#: the digits given there ("" where there is no figure to compare with).
FIGURES = {
    "convnext_base": (88_591_464, 15355, "88.6", "15.4"),
    "convnext_small": (50_223_688, 8684, "50", "8.7"),
    "convnext_tiny": (28_589_128, 4456, "28.6", "4.5"),
    "densenet": (7_978_856, 2834, "8.0", "2.8"),
    "efficientnet_lite0": (4_652_008, 385, "4.7", "0.385"),
    "efficientnet_lite1": (5_416_680, 600, "5.4", ""),
    "efficientnet_lite2": (6_092_072, 860, "6.1", ""),
    "g_ghost_regnet_032": (10_511_000, 1802, "10.5", "1.8"),
    "g_ghost_regnet_040": (15_726_268, 2228, "15.7", "2.2"),
    "g_ghost_regnet_080": (24_586_928, 4150, "24.6", "4.2"),
    "g_ghost_regnet_160": (32_381_704, 8997, "32.4", "9.0"),
    "ghostnet": (5_182_508, 141, "5.2", "0.142"),
    "mobilenet_v2": (3_504_872, 301, "3.5", "0.30"),
    "ran_e_c": (4_634_872, 489, "4.7", "0.488"),
    "ran_e_gt": (4_486_680, 434, "4.5", "0.434"),
    "ran_i_base": (52_889_769, 8429, "52.9", "8.43"),
    "ran_i_small": (28_932_376, 4577, "28.9", "4.58"),
    "ran_i_tiny": (20_760_131, 3285, "20.8", "3.28"),
    "repvgg_a0": (8_309_384, 1361, "8.3", "1.4"),
    "resnet18": (11_689_512, 1814, "11.7", "1.8"),
}
#: Where ours, rounded to the published digits, are others, and by how much at most (relative).
DIFFERENT = {
    "g_ghost_regnet_080": 0.013,  # 4.15 G; 4.2 G is published
    "ghostnet": 0.007,  # 141.2 M in convolutions; 142 M is published
    "ran_e_c": 0.015,  # the released table gives 4.63 M and 489 M; the paper has 4.7 M and 488 M
}
#: Variants without a published figure.
VARIANTS = {
    "ran_i_base:width_multiple=8": (52_925_048, 8513),
    "ran_i_small:width_multiple=8": (29_097_704, 4527),
    "ran_i_tiny:width_multiple=8": (20_803_368, 3287),
    "rep_branches_a0:deploy=true": (8_309_384, 1361),
    "repvgg_a0:deploy=false": (9_108_968, 1513),
}
#: Networks of our own, of free choice, or with a formula that a test of their own checks.
ELSEWHERE = {
    "darts_space", "nas_bench_201", "nas_bench_201_space", "ran_e", "tiny_mobilenet_v2",
    "rep_branches_a0", "tiny_rep_branches",
    "fbnet_space", "gpunet_space", "padnas_basic_space", "padnas_large_space",
    "proxylessnas_space", "sesr_m3", "sesr_m5", "sesr_m7", "sesr_m11", "sesr_xl",
}  # fmt: skip


def params_and_macs(spec):
    """Count by hooks on tensors without data, independently of chipfit.graph."""
    with torch.device("meta"):
        net = create(spec).eval()
    macs = 0

    def count(module, inputs, output):
        nonlocal macs
        if isinstance(module, nn.Conv2d):
            kernel = module.kernel_size[0] * module.kernel_size[1]
            macs += output.numel() * module.in_channels // module.groups * kernel
        elif isinstance(module, nn.Linear):
            macs += output.numel() * module.in_features

    for module in net.modules():
        module.register_forward_hook(count)
    net(torch.zeros(net.input_shape, device="meta"))
    return sum(p.numel() for p in net.parameters()), macs


def same(ours, published):
    """Whether ``ours``, rounded to the digits of ``published``, reads like it."""
    return not published or f"{ours:.{len(published.partition('.')[2])}f}" == published


@pytest.mark.parametrize("name", FIGURES)
def test_parameters_and_macs_are_the_published_ones(name):
    params, mega_macs, published_params, published_macs = FIGURES[name]
    counted = params_and_macs(name)
    assert counted[0] == params
    assert round(counted[1] / 1e6) == mega_macs
    pairs = [(counted[0] / 1e6, published_params), (counted[1] / 1e9, published_macs)]
    assert all(same(*pair) for pair in pairs) == (name not in DIFFERENT)
    for ours, text in pairs:
        if not same(ours, text):
            assert ours == pytest.approx(float(text), rel=DIFFERENT[name])


@pytest.mark.parametrize("spec", VARIANTS)
def test_variants(spec):
    params, macs = params_and_macs(spec)
    assert (params, round(macs / 1e6)) == VARIANTS[spec]


def test_every_network_is_compared():
    names = {entry.name for entry in NETS}
    assert names - ELSEWHERE == FIGURES.keys()
    assert DIFFERENT.keys() <= FIGURES.keys()
