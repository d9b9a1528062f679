# SPDX-License-Identifier: Apache-2.0
"""Finding the user's network: a name of the zoo, ``timm:NAME``, or ``file.py:factory``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from chipfit import nets
from chipfit.errors import BadInput, MissingBackend, UnknownName
from chipfit.files import read_state
from chipfit.nets.registry import NETS
from chipfit.user_code import load_module

#: The input assumed where neither the user, nor the data, nor the network names one.
DEFAULT_INPUT = (1, 3, 224, 224)


@dataclass(frozen=True)
class LoadedNetwork:
    """A network with what is known of it.

    Args:
        net: The module.
        name: What the user called it.
        input_shape: ``(1, C, H, W)``.
    """

    net: nn.Module
    name: str
    input_shape: tuple[int, ...]

    def example(self) -> torch.Tensor:
        """Return an input of the right shape, the same every time."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.input_shape, generator=generator)


def load_network(
    spec: str | nn.Module,
    *,
    input_shape: tuple[int, ...] | None = None,
    num_classes: int | None = None,
    data_shape: tuple[int, ...] | None = None,
    weights: str | Path | None = None,
    seed: int = 0,
) -> LoadedNetwork:
    """Build the network that ``spec`` names.

    Args:
        spec: A module, or a name as on the command line.
        input_shape: What the user asked for; wins over everything.
        num_classes: Outputs, where the task knows them.
        data_shape: Shape of the task's images.
        weights: A safetensors file.
        seed: Of freshly drawn weights.

    Raises:
        UnknownName: No such network.
        BadInput: The file, the factory or the weights cannot be used.
        MissingBackend: ``timm:`` without timm.
    """
    wanted = input_shape or data_shape
    if isinstance(spec, nn.Module):
        net, name = spec, type(spec).__name__
    elif spec.startswith("timm:"):
        net, name = _from_timm(spec[5:], wanted, num_classes, seed), spec
    elif ":" in spec:
        net, name = _from_factory(spec, wanted, num_classes, seed), spec
    elif spec in NETS:
        net = nets.create(spec, num_classes=num_classes, input_shape=wanted, seed=seed)
        name = spec
    else:
        error = UnknownName("network", spec, [entry.name for entry in NETS])
        error.hint += "; or timm:NAME, or file.py:factory"
        raise error
    shape = wanted or getattr(net, "input_shape", None) or DEFAULT_INPUT
    if weights is not None:
        _load_weights(net, Path(weights))
    return LoadedNetwork(net, name, tuple(int(size) for size in shape))


def _load_weights(net: nn.Module, path: Path) -> None:
    try:
        net.load_state_dict(read_state(path))
    except RuntimeError as error:
        raise BadInput(
            f"{path} does not fit {type(net).__name__}: {str(error).splitlines()[-1].strip()}",
            "build the network with the class count and options it was trained with",
        ) from error


def _options(
    factory: Callable[..., Any], wanted: tuple[int, ...] | None, num_classes: int | None
) -> dict[str, Any]:
    """Pass on only what the factory takes by name."""
    takes = inspect.signature(factory).parameters
    offer: Mapping[str, Any] = {
        "num_classes": num_classes,
        "in_channels": wanted[1] if wanted else None,
        "input_shape": wanted,
    }
    return {key: value for key, value in offer.items() if key in takes and value is not None}


def _from_timm(
    name: str, wanted: tuple[int, ...] | None, num_classes: int | None, seed: int
) -> nn.Module:
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise MissingBackend(f"timm:{name} needs timm: {error}", "pip install timm") from error
    options = {} if num_classes is None else {"num_classes": num_classes}
    if wanted:
        options["in_chans"] = wanted[1]
    if not timm.is_model(name):
        raise UnknownName("timm model", name, timm.list_models())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = timm.create_model(name, pretrained=False, **options)
    return model


def _from_factory(
    spec: str, wanted: tuple[int, ...] | None, num_classes: int | None, seed: int
) -> nn.Module:
    place, _, attribute = spec.rpartition(":")
    module = load_module(place)
    factory = getattr(module, attribute, None)
    if factory is None:
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UnknownName(f"factory in {place}", attribute, names)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = (
                factory
                if isinstance(factory, nn.Module)
                else factory(**_options(factory, wanted, num_classes))
            )
    except Exception as error:  # the user's code may raise anything
        raise BadInput(f"{spec} fails: {type(error).__name__}: {error}") from error
    if not isinstance(net, nn.Module):
        raise BadInput(f"{spec} returns a {type(net).__name__}", "return an nn.Module")
    if not hasattr(net, "input_shape") and hasattr(factory, "input_shape"):
        net.input_shape = factory.input_shape
    return net
