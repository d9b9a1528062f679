import pytest
import torch
from torch import nn
from torch.nn import functional

import chipfit as cf
from chipfit.errors import BadInput
from chipfit.graph.blocks import find_blocks, require_blocks


def _found(net, shape=(1, 3, 32, 32), keep=()):
    return find_blocks(net.eval(), torch.zeros(shape), keep)


class Own(nn.Module):
    """An inverted bottleneck in a user's own words: functions, one shared activation, no names."""

    def __init__(self, shortcut=True):
        super().__init__()
        self.a, self.b, self.c = (
            nn.Conv2d(8, 24, 1),
            nn.Conv2d(24, 24, 5, padding=2, groups=24),
            nn.Conv2d(24, 8, 1),
        )
        self.shortcut = shortcut

    def forward(self, x):
        y = self.c(functional.hardswish(self.b(functional.hardswish(self.a(x)))))
        return x + y if self.shortcut else y


class Net(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def test_inverted_residuals_of_the_zoo_are_found():
    found, others = _found(cf.nets.create("mobilenet_v2", num_classes=10), (1, 3, 64, 64))
    assert [b.module for b in found] == [f"features.{i}" for i in range(1, 18)]
    assert [b.kind for b in found] == ["separable"] + ["inverted_residual"] * 16
    first = found[1]
    assert (first.in_channels, first.out_channels, first.hidden, first.stride) == (16, 24, 96, 2)
    assert (first.kernel, first.padding, first.residual) == (3, (1, 1, 1, 1), False)
    assert found[2].residual
    assert not others


def test_a_class_of_the_user_is_found_by_what_it_computes():
    found, others = _found(Net(Own(), Own()))
    assert [(b.module, b.kind, b.kernel, b.activation) for b in found] == [
        ("blocks.0", "inverted_residual", 5, "hardswish"),
        ("blocks.1", "inverted_residual", 5, "hardswish"),
    ]
    assert not others


def test_basic_residual_blocks_are_found_with_their_shortcuts():
    found, _ = _found(cf.nets.create("resnet18", num_classes=10), (1, 3, 64, 64))
    assert len(found) == 8
    second = next(b for b in found if b.stride == 2)
    assert (second.kernel, second.padding) == (7, (3, 3, 3, 3))
    assert second.shortcut is not None
    assert second.last_activation == "relu"


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.s = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1), nn.Conv2d(16, 16, 1)

    def forward(self, x):
        y = functional.relu(self.a(x))
        return x + self.b(y * self.s(y.mean((2, 3), keepdim=True)).sigmoid())


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return x + self.a(functional.relu(self.a(x)))


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return x + self.b(self.a(x))


class Tapped(nn.Module):
    """Its inner tensor is read outside."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        self.seen = functional.relu(self.a(x))
        return x + self.b(self.seen)


class Outside(nn.Module):
    def __init__(self):
        super().__init__()
        self.tapped = Tapped()

    def forward(self, x):
        return self.tapped(x) + self.tapped.seen


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (Attending(), "mean"),
        (Twice(), "twice"),
        (Linear(), "no activation inside"),
        (Outside(), "writes 2"),
        (Own(shortcut=False), "no shortcut although shapes fit"),
    ],
)
def test_what_is_no_block_is_named_with_a_reason(block, reason):
    found, others = _found(Net(block))
    assert not found
    assert any(reason in other.reason for other in others), others
    with pytest.raises(BadInput, match="no block that becomes linear"):
        require_blocks(found, others)


def test_kept_blocks_stay():
    found, others = _found(Net(Own(), Own()), keep=("blocks.1",))
    assert [b.module for b in found] == ["blocks.0"]
    assert [(o.module, o.reason) for o in others] == [("blocks.1", "it is to be kept")]
    net = cf.nets.create("tiny_mobilenet_v2")
    found, _ = _found(net, (1, 1, 28, 28), keep=("features.3",))
    assert [b.module for b in found] == [f"features.{i}" for i in (1, 2, 4, 5)]
