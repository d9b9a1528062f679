# SPDX-License-Identifier: Apache-2.0
"""Patterns: what each block of a RAN-e network is, as a short text.

``4c_2i5x6_i3x4.r6_f3x2_head.h`` reads: four collapsed blocks, two inverted bottlenecks of kernel 5
and expansion 6, one of kernel 3 and expansion 4 with ReLU6, a fused inverted bottleneck of kernel 3
and expansion 2, and a head with hardswish. What names no activation has the network's. The text
holds no comma and no colon, so that it can stand in the name of a network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from chipfit.errors import BadInput

#: Activations by their mark in a pattern.
MARKS = {"h": "hardswish", "r6": "relu6", "r": "relu"}
_MARK_OF = {name: mark for mark, name in MARKS.items()}
#: Kinds of blocks by their letter.
COLLAPSED, INVERTED, FUSED = "c", "i", "f"

_BLOCK = re.compile(r"(\d*)(?:(c)([357]?)|([if])([357])x(\d+))(?:\.(h|r6|r))?")
_HEAD = re.compile(r"head\.(h|r6|r)")


@dataclass(frozen=True)
class BlockKind:
    """What one block is.

    Args:
        letter: ``c`` (one dense convolution behind an activation), ``i`` (inverted bottleneck) or
            ``f`` (inverted bottleneck whose expansion and depthwise convolution are one dense
            convolution).
        kernel: Of the dense or depthwise convolution.
        expansion: Hidden channels in units of the input channels; 0 for ``c``.
        activation: ``hardswish``, ``relu6`` or ``relu``; ``None`` for the network's.
    """

    letter: str
    kernel: int = 3
    expansion: int = 0
    activation: str | None = None

    def __str__(self) -> str:
        kernel = "" if self.letter == COLLAPSED and self.kernel == 3 else str(self.kernel)
        size = f"x{self.expansion}" if self.expansion else ""
        mark = f".{_MARK_OF[self.activation]}" if self.activation else ""
        return f"{self.letter}{kernel}{size}{mark}"


@dataclass(frozen=True)
class Pattern:
    """All blocks of a network, and the head's activation.

    Args:
        blocks: In the order of execution.
        head: Activation of the head; ``None`` for the network's.
    """

    blocks: tuple[BlockKind, ...]
    head: str | None = None

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read a pattern.

        >>> str(Pattern.parse("c_c_i5x6.r6_head.h"))
        '2c_i5x6.r6_head.h'

        Raises:
            BadInput: A part cannot be read; the message names it.
        """
        blocks: list[BlockKind] = []
        parts = text.split("_")
        head = _HEAD.fullmatch(parts[-1]) if parts[1:] else None
        for part in parts[:-1] if head else parts:
            found = _BLOCK.fullmatch(part)
            if not found or found[1] == "0" or found[6] == "0":
                raise BadInput(
                    f"cannot read {part!r} in the pattern {text!r}",
                    "blocks are c, i5x6 (kernel 5, expansion 6) or f3x2, behind a number of them"
                    " or none, and before .h, .r6, .r or none; the last part may be head.r6",
                )
            count, collapsed, dense, letter, kernel, expansion, mark = found.groups()
            kind = BlockKind(
                collapsed or letter, int(kernel or dense or 3), int(expansion or 0),
                MARKS[mark] if mark else None,
            )  # fmt: skip
            blocks += [kind] * int(count or 1)
        return cls(tuple(blocks), MARKS[head[1]] if head else None)

    @classmethod
    def of(cls, parts: Iterable[str]) -> Pattern:
        """Return the pattern of parts in order, the head last where it is among them."""
        return cls.parse("_".join(parts))

    def __str__(self) -> str:
        runs = ((text, len(list(same))) for text, same in groupby(map(str, self.blocks)))
        parts = [f"{count if count > 1 else ''}{text}" for text, count in runs]
        return "_".join([*parts, *([f"head.{_MARK_OF[self.head]}"] if self.head else [])])
