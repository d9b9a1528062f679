# SPDX-License-Identifier: Apache-2.0
"""Training-free scores: what an untrained network promises, higher is better."""

from chipfit.scores.registry import SCORES, compute, register_score

__all__ = ["SCORES", "compute", "register_score"]
