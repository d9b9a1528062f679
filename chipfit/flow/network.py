# SPDX-License-Identifier: Apache-2.0
"""Finding the user's network: a name of the zoo, ``timm:NAME``, or ``file.py:factory``.

Options of the zoo's networks stand behind a colon: ``ran_i_small:width_multiple=8``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from chipfit import nets
from chipfit.errors import BadInput, UnknownName
from chipfit.files import read_state
from chipfit.flow.timm_zoo import create_timm
from chipfit.nets.pretrained import WEIGHTS
from chipfit.nets.registry import NETS
from chipfit.user_code import load_module

#: ``(1, C, H, W)``, or the shapes of several inputs.
InputShape = tuple[int, ...] | Sequence[tuple[int, ...]]
#: The input assumed where neither the user, nor the data, nor the network names one.
DEFAULT_INPUT = (1, 3, 224, 224)


@dataclass(frozen=True)
class LoadedNetwork:
    """A network with what is known of it.

    Args:
        net: The module.
        name: What the user called it.
        input_shape: ``(1, C, H, W)``.
        more_shapes: Of the second and later inputs, where the network takes several.
        trained: Whether all of its weights come from training, as far as is known.
    """

    net: nn.Module
    name: str
    input_shape: tuple[int, ...]
    more_shapes: tuple[tuple[int, ...], ...] = ()
    trained: bool = False

    def example(self) -> torch.Tensor:
        """Return an input of the right shape, the same every time; the first of several."""
        return self.examples()[0]

    def examples(self) -> tuple[torch.Tensor, ...]:
        """Return one tensor per input, the same every time."""
        generator = torch.Generator().manual_seed(0)
        shapes = (self.input_shape, *self.more_shapes)
        return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def load_network(
    spec: str | nn.Module,
    *,
    input_shape: InputShape | None = None,
    num_classes: int | None = None,
    data_shape: tuple[int, ...] | None = None,
    weights: str | Path | None = None,
    seed: int = 0,
) -> LoadedNetwork:
    """Build the network that ``spec`` names.

    Args:
        spec: A module, or a name as on the command line.
        input_shape: What the user asked for; wins over everything. A sequence of shapes where the
            network takes several inputs.
        num_classes: Outputs, where the task knows them.
        data_shape: Shape of the task's images.
        weights: A safetensors file, or ``imagenet`` for those that a network of the zoo has.
        seed: Of freshly drawn weights.

    Raises:
        UnknownName: No such network.
        BadInput: The file, the factory or the weights cannot be used.
        DataUnavailable: ImageNet weights are neither cached nor reachable.
        MissingBackend: ``timm:`` without timm.
    """
    asked = _shapes(input_shape)
    wanted = asked[0] if asked else data_shape
    named = str(weights) if str(weights) in WEIGHTS else None
    trained = False
    if isinstance(spec, nn.Module):
        net, name = spec, type(spec).__name__
    elif spec.startswith("timm:"):
        net, name = _from_timm(spec[5:], wanted, num_classes, seed), spec
    elif spec.partition(":")[0] in NETS and (":" not in spec or "=" in spec):
        net = nets.create(
            spec, num_classes=num_classes, input_shape=wanted, seed=seed, weights=named
        )
        name, named, trained = spec, None, getattr(net, "fresh_parameters", None) == ()
    elif ":" in spec:
        net, name = _from_factory(spec, wanted, num_classes, seed), spec
    else:
        error = UnknownName("network", spec, [entry.name for entry in NETS])
        error.hint += "; or timm:NAME, or file.py:factory"
        raise error
    shape = wanted or getattr(net, "input_shape", None) or DEFAULT_INPUT
    if named:
        raise BadInput(f"{name} is no net of the zoo, so there are no weights {named!r} for it")
    if weights is not None and str(weights) not in WEIGHTS:
        _load_weights(net, Path(weights))
        trained = True
    return LoadedNetwork(net, name, tuple(int(size) for size in shape), asked[1:], trained)


def _shapes(given: InputShape | None) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of all inputs; none where none was asked for."""
    if not given:
        return ()
    several: Sequence[Any] = given if isinstance(given[0], Sequence) else (given,)
    return tuple(tuple(int(size) for size in shape) for shape in several)


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
    image_size = (wanted[2], wanted[3]) if wanted and len(wanted) == 4 else None
    return create_timm(
        name,
        num_classes=num_classes,
        in_channels=wanted[1] if image_size and wanted else None,
        image_size=image_size,
        seed=seed,
    )


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
