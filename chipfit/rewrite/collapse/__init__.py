# SPDX-License-Identifier: Apache-2.0
"""Merge what is linear in a network: exact algebra on a traced graph."""

from chipfit.rewrite.collapse.affine import Affine
from chipfit.rewrite.collapse.algebra import add, compose, concat
from chipfit.rewrite.collapse.network import Collapsed, collapse, collapse_steps
from chipfit.rewrite.collapse.search import Step

__all__ = ["Affine", "Collapsed", "Step", "add", "collapse", "collapse_steps", "compose", "concat"]
