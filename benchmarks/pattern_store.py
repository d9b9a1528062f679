# SPDX-License-Identifier: Apache-2.0
"""``PatternStore``: RAN-e patterns compiled as whole networks, kept in a file per target."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn

from chipfit.files import write_bytes
from chipfit.graph.capture import trace
from chipfit.methods.ran_e_pattern import Compiled, Parts, compile_pattern
from chipfit.nets import create
from chipfit.nets.ran_e_pattern import Pattern
from chipfit.scores.nn_mass import nn_mass
from chipfit.targets import Target
from chipfit.workers import WorkerPool


@dataclass(frozen=True)
class Recipe:
    """What all networks of a store have in common.

    Args:
        size: Pixels a side of the images.
        skeleton: Key of :data:`chipfit.nets.ran_e.SKELETONS`.
        num_classes: Outputs.
    """

    size: int = 224
    skeleton: str = "ran_e"
    num_classes: int = 1000

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Of one image, ``(1, C, H, W)``."""
        return (1, 3, self.size, self.size)


def build_pattern(recipe: Recipe, activation: str, parts: Parts) -> nn.Module:
    """Return the network of a pattern; parts without an activation have ``activation``."""
    return create(
        "ran_e", pattern=str(Pattern.of(parts)), skeleton=recipe.skeleton, activation=activation,
        num_classes=recipe.num_classes, input_shape=recipe.input_shape,
    )  # fmt: skip


def compiled_of(setup: tuple[Target, Recipe], item: tuple[str, Parts]) -> Compiled:
    """Compile one pattern, in a worker."""
    target, recipe = setup
    activation, parts = item
    blocks = tuple(part for part in parts if not part.startswith("head"))
    build = partial(build_pattern, recipe, activation)
    return compile_pattern(target, lambda _: build(parts), blocks, recipe.input_shape)


class PatternStore:
    """Compiles patterns, each only once.

    Args:
        folder: Keeps one file per target and recipe.
        target: Compiles.
        recipe: What all networks have in common.
        workers: Processes.
    """

    def __init__(self, folder: Path, target: Target, recipe: Recipe, workers: int = 1) -> None:
        text = json.dumps([target.fingerprint, asdict(recipe)])
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        self._path = folder / f"patterns-{target.name}-{digest}.json"
        self._facts = {"fingerprint": target.fingerprint, "recipe": asdict(recipe)}
        self.target, self.recipe = target, recipe
        self._setup = (target, recipe)
        self._pool = WorkerPool(workers, self._setup)
        self._known: dict[str, dict[str, object]] = {}
        #: Networks compiled by this object.
        self.compilations = 0
        if self._path.is_file():
            self._known = json.loads(self._path.read_text())["compiled"]

    def __enter__(self) -> PatternStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace_: TracebackType | None,
    ) -> None:  # fmt: skip
        self._pool.close()

    def builder(self, activation: str) -> Callable[[Parts], nn.Module]:
        """Return what makes the network of a pattern."""
        return partial(build_pattern, self.recipe, activation)

    def compile_many(self, patterns: Sequence[Parts], activation: str) -> list[Compiled]:
        """Return the patterns' networks as compiled, in order; absent ones are compiled now."""
        keys = [f"{activation} {'_'.join(parts)}" for parts in patterns]
        absent = {k: p for k, p in zip(keys, patterns, strict=True) if k not in self._known}
        items = [(activation, parts) for parts in absent.values()]
        if self._pool.count == 1:
            for key, item in zip(absent, items, strict=True):
                self._keep(key, compiled_of(self._setup, item))
        else:
            names = list(absent)
            for at, compiled in self._pool.map(compiled_of, items):
                self._keep(names[at], compiled)
        return [self._restored(self._known[key]) for key in keys]

    def whole(self, name: str, net: nn.Module) -> float:
        """Return the latency in ms of any network, by name."""
        key = f"net {name}"
        if key not in self._known:
            cost = self.target.cost(trace(net, torch.zeros(self.recipe.input_shape)))
            self._known[key] = {"latency_ms": cost.total["latency_ms"]}
            self._write()
        return float(self._known[key]["latency_ms"])  # type: ignore[arg-type]

    @lru_cache(maxsize=1024)  # noqa: B019  # a store lives as long as its benchmark
    def nn_mass(self, parts: Parts) -> float:
        """Return the NN-Mass of a pattern's network."""
        net = build_pattern(self.recipe, "relu6", parts).eval()
        return nn_mass(trace(net, torch.zeros(self.recipe.input_shape)))

    def _keep(self, key: str, compiled: Compiled) -> None:
        self._known[key] = asdict(compiled)
        self.compilations += 1
        self._write()

    def _write(self) -> None:
        data = {**self._facts, "compiled": self._known}
        write_bytes(self._path, (json.dumps(data) + "\n").encode())

    @staticmethod
    def _restored(form: dict[str, Any]) -> Compiled:
        parts, charges = tuple(form["parts"]), tuple(form["charges"])
        return Compiled(**{**form, "parts": parts, "charges": charges})
