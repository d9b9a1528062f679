# SPDX-License-Identifier: Apache-2.0
"""``replay``: apply a list of edits of any kind to a network."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import groupby, takewhile
from typing import Any

from torch import nn

from chipfit.errors import BadInput
from chipfit.rewrite.edits import Edit, relative
from chipfit.rewrite.scale import Scale
from chipfit.rewrite.separate import Separate
from chipfit.rewrite.slice import slice_channels_
from chipfit.rewrite.swap import Swap

#: What can be done to a network and stored: remove channels, swap a module, scale the whole.
Rewrite = Edit | Swap | Scale

_KINDS: dict[str, Any] = {"slice": Edit, "swap": Swap, "separate": Separate, "scale": Scale}


def rewrite_from_json(data: Mapping[str, Any]) -> Rewrite:
    """Restore an edit of any kind from its JSON form.

    Raises:
        BadInput: The kind is unknown, or a field is missing or of the wrong kind.
    """
    kind = data.get("rewrite") if isinstance(data, Mapping) else None
    if kind not in _KINDS:
        raise BadInput(f"not an edit: {data!r}", f"known kinds: {', '.join(_KINDS)}")
    return _KINDS[kind].from_json(data)


def replay(net: nn.Module, edits: Sequence[Rewrite]) -> nn.Module:
    """Return a copy of ``net`` with the edits applied in order; ``net`` is not changed.

    Slices in a row are applied together: their indices count channels as they were before the
    first of them.

    Raises:
        BadInput: An edit does not fit the network.
        UnknownName: A swap names a block that is not there.
    """
    return replay_(copy.deepcopy(net), edits)


def replay_(net: nn.Module, edits: Sequence[Rewrite]) -> nn.Module:
    """Apply the edits to ``net``, in place where their kind allows it, and return the result.

    Errors as :func:`replay`. Optimisers made before must be made anew.
    """
    for slicing, some in groupby(edits, key=lambda edit: isinstance(edit, Edit)):
        if slicing:
            slice_channels_(net, [edit for edit in some if isinstance(edit, Edit)])
        else:
            for edit in some:
                if not isinstance(edit, Edit):
                    net = edit.apply(net)
    return net


def remaining(before: Sequence[Rewrite], after: Sequence[Rewrite]) -> list[Rewrite]:
    """Return edits that turn the network of ``before`` into that of ``after``.

    What both begin with is done; slices of the rest count from there.

    Raises:
        BadInput: ``before`` did something that ``after`` does not.
    """
    shared = 0
    while shared < min(len(before), len(after)) and before[shared] == after[shared]:
        shared += 1
    while shared and isinstance(before[shared - 1], Edit):
        shared -= 1  # slices in a row count together
    done = [edit for edit in before[shared:] if isinstance(edit, Edit)]
    if len(done) < len(before) - shared:
        raise BadInput("a swap or a scaling cannot be undone", "start from the original network")
    wanted = after[shared:]
    slices = [e for e in takewhile(lambda e: isinstance(e, Edit), wanted) if isinstance(e, Edit)]
    return [*relative(done, slices), *wanted[len(slices) :]]
