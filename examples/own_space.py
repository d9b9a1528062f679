# SPDX-License-Identifier: Apache-2.0
"""A search space of one's own: a network, and by place the blocks that may stand there.

Try ``chipfit fit examples/own_space.py:net --method fbnet --target ethos-u55-128 --budget
latency_ms=80% --data fashion-mnist``; the budget is met by choosing blocks. A place is any module
by its dotted name; ``chipfit.blocks.registry.register_block`` adds a block of one's own.
"""

from itertools import pairwise

from torch import nn

from chipfit.blocks.registry import create_block
from chipfit.space import BlockChoice, BlockSpace, Operation, Swap

WIDTHS = (16, 24, 24, 32, 32)


def net(num_classes: int = 10, input_shape: tuple[int, ...] = (1, 1, 28, 28)) -> nn.Module:
    """Return the network; it carries its space as ``block_space``."""
    layers = [nn.Conv2d(input_shape[1], WIDTHS[0], 3, 2, 1), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()]
    choices = []
    for i, (into, out) in enumerate(pairwise(WIDTHS)):
        place, stride = str(len(layers)), 2 if i == 0 else 1
        operations = [
            Operation(f"{block}_e{e}", (Swap(place, block, into, out, stride, {"expansion": e}),))
            for block in ("inverted_residual", "fused_inverted_residual")
            for e in (2, 4)
        ]
        if stride == 1 and into == out:
            operations.append(Operation("skip", (Swap(place, "skip", into, out),)))
        choices.append(BlockChoice(f"layer{i}", (place,), tuple(operations)))
        layers.append(create_block("inverted_residual", into, out, stride, expansion=4))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], num_classes)]
    model = nn.Sequential(*layers)
    model.block_space, model.input_shape = BlockSpace(tuple(choices)), input_shape
    return model
