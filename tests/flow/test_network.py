import importlib.util

import pytest
import torch
from torch import nn

from chipfit.errors import BadInput, MissingBackend, UnknownName
from chipfit.files import write_state
from chipfit.flow.network import load_network
from chipfit.graph.capture import trace
from chipfit.workers import WorkerPool

FACTORY = """
import torch
from torch import nn

class Mine(nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3), nn.Linear(8, num_classes)
    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))

def make(num_classes=3):
    return Mine(num_classes)
make.input_shape = (1, 1, 8, 8)

def broken():
    raise RuntimeError("no such thing")

def number():
    return 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FACTORY)
    return path


def test_names_files_and_modules(file):
    assert (
        load_network("tiny_mobilenet_v2", num_classes=7).net(torch.zeros(1, 1, 28, 28)).shape[1]
        == 7
    )
    loaded = load_network(f"{file}:make", num_classes=5)
    assert loaded.input_shape == (1, 1, 8, 8)
    assert loaded.net(loaded.example()).shape == (1, 5)
    module = nn.Conv2d(3, 4, 1)
    assert load_network(module).net is module
    assert load_network(module).input_shape == (1, 3, 224, 224)


def test_the_same_seed_gives_the_same_weights(file):
    one, two = (load_network(f"{file}:make", seed=3).net.state_dict() for _ in range(2))
    assert all(torch.equal(one[k], two[k]) for k in one)


def _shape(setup, item):
    return tuple(setup(item).shape)


def test_a_network_from_a_file_reaches_worker_processes(file):
    net = load_network(f"{file}:make").net
    with WorkerPool(1, net) as pool:
        assert list(pool.map(_shape, [torch.zeros(1, 1, 8, 8)])) == [(0, (1, 3))]


def test_mistakes_are_explained(file, tmp_path):
    with pytest.raises(UnknownName) as caught:
        load_network("mobilenet_v3")
    assert "mobilenet_v2" in caught.value.hint
    with pytest.raises(UnknownName) as caught:
        load_network(f"{file}:mak")
    assert "make" in caught.value.hint
    with pytest.raises(BadInput, match="no such thing"):
        load_network(f"{file}:broken")
    with pytest.raises(BadInput, match="returns a int"):
        load_network(f"{file}:number")
    with pytest.raises(BadInput, match="no file"):
        load_network(f"{tmp_path / 'none.py'}:make")
    with pytest.raises(BadInput, match="cannot be imported"):
        load_network("no.such.module:make")
    write_state(tmp_path / "w.safetensors", {"other": torch.zeros(2)})
    with pytest.raises(BadInput, match="does not fit"):
        load_network(f"{file}:make", weights=tmp_path / "w.safetensors")


def test_timm_is_optional():
    if importlib.util.find_spec("timm") is None:
        with pytest.raises(MissingBackend, match="timm"):
            load_network("timm:test_resnet")
    else:
        assert load_network("timm:test_resnet").input_shape == (1, 3, 160, 160)


def test_several_inputs():
    class Two(nn.Module):
        def forward(self, image, scale):
            return image * scale

    loaded = load_network(Two(), input_shape=[(1, 3, 8, 8), (1, 3, 1, 1)])
    assert [tuple(x.shape) for x in loaded.examples()] == [(1, 3, 8, 8), (1, 3, 1, 1)]
    assert torch.equal(loaded.example(), loaded.examples()[0])
    assert trace(loaded.net, loaded.examples()).inputs == ("input", "input_1")
