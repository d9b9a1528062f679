# SPDX-License-Identifier: Apache-2.0
"""What can be chosen: choices, search spaces, architectures, and spaces taken from networks."""

from chipfit.space import nas_bench_201
from chipfit.space.architecture import Architecture
from chipfit.space.choice import Choice, SearchSpace
from chipfit.space.widths import width_options, width_space

__all__ = ["Architecture", "Choice", "SearchSpace", "nas_bench_201", "width_options", "width_space"]
