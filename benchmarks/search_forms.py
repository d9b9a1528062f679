# SPDX-License-Identifier: Apache-2.0
"""One chain of inverted residuals as a plain network and as a supernet of every relaxation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from chipfit.blocks.inverted_residual import InvertedResidual
from chipfit.errors import BadInput
from chipfit.rewrite.swap import Swap
from chipfit.space.blocks import BlockChoice, BlockSpace, Operation
from chipfit.supernet.mixture import BinaryGates, GumbelSoftmax, OneHot, Relaxation, Softmax
from chipfit.supernet.relaxations import gumbel_softmax
from chipfit.supernet.supernet import Supernet
from chipfit.supernet.window import Window
from chipfit.supernet.windowed_supernet import WindowedSupernet
from chipfit.train.contexts import laid_out
from chipfit.train.randomness import generator

#: Relaxations of the plain supernet.
RELAXATIONS: dict[str, Relaxation] = {
    "softmax (DARTS)": Softmax(),
    "Gumbel-softmax (FBNet)": GumbelSoftmax(),
    "one-hot (single path)": OneHot(),
    "binary gates, two paths (ProxylessNAS)": BinaryGates(2),
    "binary gates, all paths (ProxylessNAS)": BinaryGates(0),
}
#: Windows of the bi-path: as a search starts, and where both sides cost most.
WINDOWS = {
    "bi-path, first window (PruNet)": lambda n: Window.whole(n),
    "bi-path, two widest (PruNet)": lambda n: Window(n - 2, n - 1, 0, n),
}
#: Our reference: whether the weights are drawn.
REFERENCES = {"softmax, after NNI": False, "Gumbel-softmax, after NNI": True}
PLAIN = "one network"
Step = Callable[[], None]


class Chain(nn.Module):
    """A stem, inverted residuals of one shape, and a classifier.

    Args:
        channels: Of the tensors between blocks.
        hidden: Of every block.
        layers: Number of blocks.
    """

    def __init__(self, channels: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(
            *[InvertedResidual(channels, channels, hidden) for _ in range(layers)]
        )
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` to ``(N, 10)``."""
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Stacked(nn.Module):
    """All candidates' outputs stacked and summed with weights, as NNI's mixed layers do."""

    def __init__(self, candidates: Sequence[nn.Module], drawn: bool) -> None:
        super().__init__()
        self.candidates, self.drawn = nn.ModuleList(candidates), drawn
        self.alpha = nn.Parameter(1e-3 * torch.randn(len(self.candidates)))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        outputs = torch.stack([candidate(x) for candidate in self.candidates])
        weights = torch.softmax(self.alpha, 0)
        if self.drawn:
            weights = gumbel_softmax(self.alpha, 1.0, hard=False)
        return (outputs * weights.reshape(-1, 1, 1, 1, 1)).sum(0)


def widths(hidden: int, count: int) -> list[int]:
    """Return ``count`` hidden widths from three quarters of the largest up to it.

    Raises:
        BadInput: There are not as many whole numbers.
    """
    low = -(-3 * hidden // 4)
    found = (
        [round(low + (hidden - low) * i / (count - 1)) for i in range(count)] if count > 1 else []
    )
    if len(set(found)) != count or count < 2:
        raise BadInput(f"{count} widths do not fit between {low} and {hidden}", "use a wider block")
    return sorted(found)


def space_of_widths(net: Chain, channels: int, hidden: int, count: int) -> BlockSpace:
    """Return the space in which every block has ``count`` widths."""
    return BlockSpace(
        tuple(
            BlockChoice(
                place, (place,),
                tuple(
                    Operation(f"k3_h{w}", (Swap(place, "inverted_residual", channels, channels, 1,
                                                {"hidden": w}),))
                    for w in widths(hidden, count)
                ),
                ordered=True,
            )
            for place in (f"blocks.{i}" for i in range(len(net.blocks)))
        )
    )  # fmt: skip


def stepper(
    net: nn.Module, logits: Sequence[nn.Parameter], batch: tuple[Tensor, Tensor],
    draw: Step = lambda: None,
) -> Step:  # fmt: skip
    """Return a function that makes one step of weights and architecture parameters together."""
    own = {id(p) for p in logits}
    sgd = torch.optim.SGD([p for p in net.parameters() if id(p) not in own], 0.01, momentum=0.9)
    adam = torch.optim.Adam(logits, 0.01) if logits else None
    net.train()

    def step() -> None:
        net.zero_grad(set_to_none=True)
        draw()
        cross_entropy(net(batch[0]), batch[1]).backward()
        sgd.step()
        if adam is not None:
            adam.step()

    return step


def forms(given: Any, count: int) -> dict[str, tuple[nn.Module, Step]]:
    """Return every form of the same network, and its step."""
    torch.manual_seed(given.seed)
    images = torch.randn(given.batch, 3, given.size, given.size)
    batch = laid_out(images), torch.randint(10, (given.batch,))
    plain = Chain(given.channels, given.hidden, given.layers)
    space = space_of_widths(plain, given.channels, given.hidden, count)
    found: dict[str, tuple[nn.Module, Step]] = {PLAIN: (plain, stepper(plain, [], batch))}
    for name, relaxation in RELAXATIONS.items():
        supernet = Supernet(plain, space, seed=given.seed)
        found[name] = (supernet, _supernet_step(supernet, relaxation, batch))
    for name, window in WINDOWS.items():
        windowed = WindowedSupernet(plain, space, seed=given.seed)
        for choice, grids in windowed.grids.items():
            for path in windowed.paths(choice, grids[0]):
                path.adopt(window(count))
        found[name] = (windowed, _supernet_step(windowed, GumbelSoftmax(), batch))
    for name, drawn in REFERENCES.items():
        net = Chain(given.channels, given.hidden, given.layers)
        for place in space:
            blocks = [operation.swaps[0].build() for operation in place.operations]
            net.set_submodule(place.name, Stacked(blocks, drawn))
        alphas = [p for n, p in net.named_parameters() if n.endswith("alpha")]
        found[name] = (net, stepper(net, alphas, batch))
    for module, _ in found.values():  # as all training in the package is
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return found


def _supernet_step(
    supernet: Supernet, relaxation: Relaxation, batch: tuple[Tensor, Tensor]
) -> Step:
    noise = generator(0)

    def draw() -> None:
        supernet.draw(relaxation, 1.0, noise)

    return stepper(supernet, supernet.architecture_parameters(), batch, draw)
