# SPDX-License-Identifier: Apache-2.0
"""``ReplacementStore``: trained replacements on disk, and networks put together from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from torch import nn

from chipfit.errors import BadInput
from chipfit.files import read_state, write_state
from chipfit.rewrite.replay import replay
from chipfit.space.blocks import KEEP, BlockSpace


class ReplacementStore:
    """Weights of the operations of a space, a file for each, read only where they are needed.

    Args:
        folder: Where the files are.
        space: The choices and operations that they belong to.
    """

    def __init__(self, folder: Path, space: BlockSpace) -> None:
        self.folder, self.space = folder, space

    def path(self, choice: str, operation: str) -> Path:
        """Return the file of an operation; what has no weights has none."""
        return self.folder / quote(choice, safe="") / f"{quote(operation, safe='')}.safetensors"

    def write(self, choice: str, operation: str, modules: Sequence[nn.Module]) -> None:
        """Keep the weights of an operation at the places of its choice, in order.

        Raises:
            StorageError: They cannot be written.
        """
        state = {f"{p}.{n}": v for p, m in enumerate(modules) for n, v in m.state_dict().items()}
        if state and self.space[choice][operation].swaps:
            write_state(self.path(choice, operation), state)

    def assemble(self, net: nn.Module, architecture: Mapping[str, str]) -> nn.Module:
        """Return a network with the chosen operations, as a plain module.

        Everything else is a copy of ``net``'s; with its own operation everywhere it equals it bit
        by bit. Batch norms behind a replacement want
        :func:`~chipfit.train.batchnorm.recalibrate_batchnorm`.

        Args:
            net: The network that the operations were trained in.
            architecture: An operation name by choice.

        Raises:
            BadInput: It is no architecture of the space.
            StorageError: An operation was not trained.
        """
        built = replay(net, self.space.edits(architecture))
        for choice in self.space:
            swaps = choice[architecture[choice.name]].swaps
            modules = [built.get_submodule(swap.module) for swap in swaps]
            if not any(module.state_dict() for module in modules):
                continue
            state = read_state(self.path(choice.name, architecture[choice.name]))
            for p, module in enumerate(modules):
                own = {n.partition(".")[2]: v for n, v in state.items() if n.startswith(f"{p}.")}
                try:
                    module.load_state_dict(own)
                except RuntimeError as error:
                    raise BadInput(
                        f"{choice.name}: the weights kept for {architecture[choice.name]} are of"
                        f" another block: {error}"
                    ) from error
        return built

    def alone(self, choice: str, operation: str) -> dict[str, str]:
        """Return the architecture in which one choice takes an operation and all else is kept."""
        return {c.name: operation if c.name == choice else KEEP for c in self.space}
