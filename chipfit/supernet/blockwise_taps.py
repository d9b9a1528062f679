# SPDX-License-Identifier: Apache-2.0
"""``tapped``: see what enters and leaves blocks of a network while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from chipfit.errors import BadInput

#: Called with the name of a block, what entered it and what left it, ``(N, C, H, W)`` each.
OnBlock = Callable[[str, Tensor, Tensor], None]


@contextmanager
def tapped(net: nn.Module, places: Sequence[str], on_block: OnBlock) -> Iterator[None]:
    """Call ``on_block`` in every forward pass, block by block, as soon as each has run.

    What it is given is detached; what entered is a copy, as a block may change it in place. What
    left is the network's own tensor, and must not be changed. It is free again before the next
    block runs, unless the network needs it.

    Args:
        net: The network.
        places: Dotted names of the blocks.
        on_block: What looks.

    Raises:
        BadInput: The network has no such module.
    """
    entered: dict[str, Tensor] = {}
    hooks = []

    def before(place: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
            entered[place] = args[0].detach().clone()

        return keep

    def after(place: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def show(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
            on_block(place, entered.pop(place), result.detach())

        return show

    try:
        for place in places:
            try:
                module = net.get_submodule(place)
            except AttributeError as error:
                raise BadInput(f"the network has no module {place!r} to listen to") from error
            hooks.append(module.register_forward_pre_hook(before(place)))
            hooks.append(module.register_forward_hook(after(place)))
        yield
    finally:
        for hook in hooks:
            hook.remove()
