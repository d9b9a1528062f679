import os

import pytest
import torch

from chipfit.errors import DataUnavailable
from chipfit.nets import create
from chipfit.rewrite.swap import Swap
from chipfit.space.blocks import KEEP, BlockChoice, BlockSpace, Operation

# Many small networks on few cores: threads of one test would only fight with each other.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cost_table(tmp_path, monkeypatch):
    """Keep tests away from the user's own cost table."""
    monkeypatch.setenv("CHIPFIT_TABLE", str(tmp_path / "costs.sqlite"))


@pytest.fixture(scope="session")
def fetched():
    """Return what a function fetches; where it cannot be reached the test is skipped, or fails."""

    def get(fetch):
        try:
            return fetch()
        except DataUnavailable as error:
            if os.environ.get("CHIPFIT_REQUIRE_DOWNLOADS"):
                raise
            pytest.skip(f"not cached and not reachable: {error}")

    return get


def _operation(name, place, block, channels, stride=1, **options):
    return Operation(name, (Swap(place, block, *channels, stride, options),))


def _toy_net(num_classes=10, input_shape=(1, 1, 8, 8)):
    """Return a tiny_mobilenet_v2 that carries a space of two choices."""
    net = create("tiny_mobilenet_v2", num_classes=num_classes, input_shape=input_shape)
    choices = []
    for index in (3, 5):
        place = f"features.{index}"
        block = net.get_submodule(place)
        convs = [m for m in block.modules() if hasattr(m, "kernel_size")]
        channels = convs[0].in_channels, convs[-1].out_channels
        stride = max(m.stride[0] for m in convs)
        options = [
            Operation(KEEP),
            _operation("k5", place, "inverted_residual", channels, stride, kernel=5, expansion=2),
            _operation("k3_e1", place, "inverted_residual", channels, stride, expansion=1),
        ]
        if stride == 1 and channels[0] == channels[1]:
            options.append(_operation("skip", place, "skip", channels))
        choices.append(BlockChoice(place, (place,), tuple(options)))
    net.block_space = BlockSpace(tuple(choices))
    return net


@pytest.fixture(scope="session")
def toy_net():
    """Return the factory of a small network with a search space of its own."""
    return _toy_net
