import math

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chipfit.export.interpreter import run_onnx
from chipfit.export.onnx import to_onnx_bytes


class Padded(nn.Module):
    def __init__(self, sides, padding=0, value=0.0, mode="constant"):
        super().__init__()
        self.sides, self.value, self.mode = sides, value, mode
        self.conv = nn.Conv2d(2, 3, 3, 2, padding)

    def forward(self, x):
        return self.conv(
            F.pad(x, self.sides, self.mode, self.value if self.mode == "constant" else None)
        )


class ReadTwice(Padded):
    def forward(self, x):
        y = F.pad(x, self.sides)
        return self.conv(y) + y.mean()


class Pooled(nn.Module):
    def __init__(self, sides, value=-math.inf, ceil=False):
        super().__init__()
        self.sides, self.value = sides, value
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=ceil)

    def forward(self, x):
        return self.pool(F.pad(x, self.sides, value=self.value))


POOLS = {
    "asymmetric": (Pooled((0, 1, 1, 1)), True),
    "of zeros": (Pooled((0, 1, 0, 1), value=0.0), False),
    "rounded up": (Pooled((0, 1, 0, 1), ceil=True), False),
}
CASES = {
    "asymmetric": (Padded((0, 1, 0, 1)), True),
    "on top of the convolution's own": (Padded((1, 0, 2, 1), padding=1), True),
    "a value": (Padded((0, 1, 0, 1), value=1.0), False),
    "cropping": (Padded((0, -1, 0, 1)), False),
    "reflection": (Padded((1, 1, 1, 1), mode="reflect"), False),
    "channels": (Padded((0, 1, 0, 1, 0, 0)), True),
    "read twice": (ReadTwice((0, 1, 0, 1)), False),
}


@pytest.mark.parametrize("name", POOLS)
def test_a_pooling_pads_with_minus_infinity(name):
    torch.manual_seed(0)
    net, folds = POOLS[name]
    x = torch.randn(2, 2, 9, 7) - 3
    content = to_onnx_bytes(net, x)
    kinds = [node.op_type for node in onnx.load_from_string(content).graph.node]
    assert ("Pad" not in kinds) == folds
    np.testing.assert_array_equal(run_onnx(content, x.numpy()), net(x))


@pytest.mark.parametrize("name", CASES)
def test_folding_changes_nothing(name):
    torch.manual_seed(0)
    net, folds = CASES[name]
    x = torch.randn(2, 2, 9, 7)
    content = to_onnx_bytes(net, x)
    kinds = [node.op_type for node in onnx.load_from_string(content).graph.node]
    assert ("Pad" not in kinds) == folds
    if folds:
        assert kinds == ["Conv"]
    with torch.no_grad():
        np.testing.assert_allclose(run_onnx(content, x.numpy()), net(x), rtol=1e-5, atol=1e-5)
