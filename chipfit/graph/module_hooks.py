# SPDX-License-Identifier: Apache-2.0
"""``module_hooks``: be told of every module that a network enters and leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules import module as nn_module


@contextmanager
def module_hooks(
    enter: Callable[[nn.Module, Any], None], leave: Callable[[nn.Module, Any, Any], None]
) -> Iterator[None]:
    """Call ``enter(module, inputs)`` and ``leave(module, inputs, result)`` meanwhile.

    ``leave`` is called where the module fails, too.
    """
    hooks = [
        nn_module.register_module_forward_pre_hook(enter),
        nn_module.register_module_forward_hook(leave, always_call=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
