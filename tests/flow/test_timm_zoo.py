# SPDX-License-Identifier: Apache-2.0
"""Networks of timm, and the stand-in for a torchvision that does not work."""

import sys

import pytest
import torch

from chipfit.errors import BadInput, MissingBackend, UnknownName
from chipfit.flow import timm_zoo
from chipfit.flow.network import load_network


def test_the_stand_in_is_taken_away_again(monkeypatch):
    monkeypatch.setattr(timm_zoo, "torchvision_works", lambda: False)
    before = {name for name in sys.modules if name.startswith("torchvision")}
    with timm_zoo.stand_in():
        from torchvision.ops.misc import FrozenBatchNorm2d
        from torchvision.transforms import Compose
        from torchvision.transforms.functional import InterpolationMode

        assert InterpolationMode.BICUBIC.value == "bicubic"
        with pytest.raises(MissingBackend, match="torchvision.transforms.Compose"):
            Compose([])
        assert not isinstance(torch.nn.ReLU(), FrozenBatchNorm2d)
    assert {name for name in sys.modules if name.startswith("torchvision")} == before


def test_a_torchvision_that_breaks_on_import_leaves_nothing(monkeypatch, tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "extension.py").write_text("")
    (package / "__init__.py").write_text(
        "from torchvision import extension\n"
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    saved = {n: sys.modules.pop(n) for n in list(sys.modules) if n.startswith("torchvision")}
    try:
        assert not timm_zoo.torchvision_works()
        with timm_zoo.stand_in():
            import torchvision.datasets

            assert torchvision.datasets.ImageFolder.__name__ == "ImageFolder"
        assert "torchvision" not in sys.modules
    finally:
        for name in [n for n in sys.modules if n.startswith("torchvision")]:
            del sys.modules[name]
        sys.modules.update(saved)


def test_networks_of_timm():
    try:
        models = timm_zoo.timm_models()
    except MissingBackend as error:
        pytest.skip(str(error))
    assert models["levit_128s"] == "levit"
    loaded = load_network("timm:test_vit")
    assert loaded.input_shape == (1, 3, 160, 160)
    again = load_network("timm:test_vit")
    assert all(
        torch.equal(a, b)
        for a, b in zip(loaded.net.parameters(), again.net.parameters(), strict=True)
    )
    small = load_network("timm:test_vit", input_shape=(1, 1, 32, 32), num_classes=3)
    with torch.no_grad():
        assert small.net(small.example()).shape == (1, 3)
    with pytest.raises(UnknownName) as caught:
        load_network("timm:test_vitt")
    assert "test_vit" in caught.value.near
    with pytest.raises(BadInput, match="cannot be built") as bad:
        timm_zoo.create_timm("test_vit", in_channels=-1)
    assert "1,3,160,160" in bad.value.hint
