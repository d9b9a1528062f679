# SPDX-License-Identifier: Apache-2.0
"""The networks of timm, with or without a torchvision that works.

timm imports torchvision when it is itself imported, for image transforms, data sets and one
normalisation class; its networks compute without any of it. A torchvision that is missing, or
was built for another PyTorch, would bar all of them, so :func:`stand_in` puts empty places in
its stead while timm is imported, and takes them away again.
"""

from __future__ import annotations

import enum
import importlib
import importlib.machinery
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import nn

from chipfit.errors import BadInput, MissingBackend, UnknownName

#: The packages of torchvision that timm imports names from.
_PLACES = (
    "torchvision", "torchvision.ops", "torchvision.ops.misc", "torchvision.transforms",
    "torchvision.transforms.functional", "torchvision.datasets",
)  # fmt: skip
#: torchvision's ``InterpolationMode``, whose members timm lists in tables of its own.
_INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos")


def _absent(place: str, name: str) -> type[nn.Module]:
    """Return a class that can be derived from and compared with, but not used."""

    def refuse(self: Any, *_: Any, **__: Any) -> None:
        raise MissingBackend(f"{place}.{name} needs torchvision", "pip install torchvision")

    return type(name, (nn.Module,), {"__init__": refuse, "__module__": place})


class _Place(ModuleType):
    """A module in which every name is a class of :func:`_absent`."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = _absent(self.__name__, name)
        setattr(self, name, found)
        return found


def torchvision_works() -> bool:
    """Return whether torchvision can be imported; one built for another PyTorch cannot."""
    try:
        importlib.import_module("torchvision")
    except Exception:  # a mismatched build raises RuntimeError while it registers operators
        return False
    return True


@contextmanager
def stand_in() -> Iterator[None]:
    """Let modules that import torchvision be imported where it cannot be.

    Nothing happens where torchvision works. Otherwise ``sys.modules`` is as before afterwards:
    others who look for torchvision still find that it is not there.
    """
    if torchvision_works():
        yield
        return
    left = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_torchvision(name)}
    for name in _PLACES:
        place = _Place(name)
        place.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        sys.modules[name] = place
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, place)
    members = {mode.upper().replace("-", "_"): mode for mode in _INTERPOLATIONS}
    modes = enum.Enum("InterpolationMode", members)  # type: ignore[misc]
    for name in ("torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[name].InterpolationMode = modes  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for name in [name for name in sys.modules if _is_torchvision(name)]:
            del sys.modules[name]
        sys.modules.update(left)


def _is_torchvision(name: str) -> bool:
    return name == "torchvision" or name.startswith("torchvision.")


def _timm() -> ModuleType:
    if "timm" in sys.modules:
        return sys.modules["timm"]
    try:
        with stand_in():
            return importlib.import_module("timm")
    except ImportError as error:
        raise MissingBackend(
            f"networks of timm need timm: {error}", "pip install 'chipfit[timm]'"
        ) from error


def timm_models() -> dict[str, str]:
    """Return every architecture of timm with its family, the module of timm that defines it.

    Raises:
        MissingBackend: timm is not installed.
    """
    timm = _timm()
    family = timm.models._registry._model_to_module
    return {name: family[name] for name in timm.list_models()}


def timm_input_size(name: str) -> tuple[int, int, int]:
    """Return ``(C, H, W)`` of the images that the authors evaluate ``name`` on.

    Raises:
        MissingBackend: timm is not installed.
    """
    settings = _timm().get_pretrained_cfg(name)
    size = settings.input_size if settings is not None else (3, 224, 224)
    return int(size[0]), int(size[1]), int(size[2])


def create_timm(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    image_size: tuple[int, int] | None = None,
    seed: int = 0,
) -> nn.Module:
    """Build a network of timm with freshly drawn weights.

    Args:
        name: As in ``timm.list_models()``.
        num_classes: Outputs; timm's own where ``None``.
        in_channels: Channels of the images.
        image_size: ``(H, W)``. Networks with a table of positions are built for it.
        seed: Of the weights; the global random state is left alone.

    Returns:
        The module, with the shape of its input ``(1, C, H, W)`` as ``input_shape``.

    Raises:
        MissingBackend: timm is not installed.
        UnknownName: timm has no such network.
        BadInput: The network cannot be built for these channels, classes or image size.
    """
    timm = _timm()
    if not timm.is_model(name):
        raise UnknownName("timm model", name, timm.list_models())
    settings = timm.get_pretrained_cfg(name)
    channels, height, width = timm_input_size(name)
    options: dict[str, Any] = {}
    if num_classes is not None:
        options["num_classes"] = num_classes
    if in_channels is not None and in_channels != channels:
        channels = options["in_chans"] = in_channels
    if image_size is not None and image_size != (height, width):
        if settings is not None and settings.fixed_input_size:
            options["img_size"] = image_size
        height, width = image_size
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: nn.Module = timm.create_model(name, pretrained=False, **options)
    except Exception as error:  # each architecture refuses options in its own way
        wanted = ", ".join(f"{key}={value}" for key, value in options.items()) or "no options"
        size = ",".join(str(n) for n in (1, *timm_input_size(name)))
        raise BadInput(
            f"timm:{name} cannot be built with {wanted}: {type(error).__name__}: {error}",
            f"its own input is --input {size}",
        ) from error
    model.input_shape = (1, channels, height, width)  # type: ignore[assignment]
    return model
