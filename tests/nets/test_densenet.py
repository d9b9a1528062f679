# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from chipfit.graph import trace
from chipfit.nets import create
from chipfit.nets.densenet import DenseNet
from chipfit.scores.nn_mass import nn_mass


def test_names_are_those_of_torchvision():
    keys = create("densenet", num_classes=3, input_shape=(1, 3, 32, 32)).state_dict()
    assert "features.denseblock1.denselayer1.norm1.weight" in keys
    assert "features.transition3.conv.weight" in keys
    assert "features.norm5.running_mean" in keys


def test_every_layer_adds_its_growth_and_transitions_halve():
    net = DenseNet((4, 8), (3, 2), 3, (1, 3, 32, 32), True)
    assert net.features.transition1.conv.in_channels == 8 + 3 * 4
    assert net.classifier.in_features == (8 + 12) // 2 + 2 * 8
    assert net.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("growth", [4, 8])
def test_more_growth_and_more_layers_are_more_mass(growth):
    net = DenseNet((4, 4), (3, 3), 3, (1, 3, 32, 32), True)
    x = torch.zeros(1, 3, 32, 32)
    masses = [nn_mass(trace(net.scaled((growth,) * 2, (d, d)), x)) for d in (3, 6)]
    assert 0 < masses[0] < masses[1]
    assert nn_mass(trace(net.scaled((2 * growth,) * 2, (6, 6)), x)) == pytest.approx(2 * masses[1])
