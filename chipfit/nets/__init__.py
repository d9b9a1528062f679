# SPDX-License-Identifier: Apache-2.0
"""Networks by name, as tables on shared blocks."""

from chipfit.nets.registry import NETS, create, register_net

__all__ = ["NETS", "create", "register_net"]
