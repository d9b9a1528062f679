# SPDX-License-Identifier: Apache-2.0
"""Data sets: fetched through package managers or read from folders, verified and cached."""

from chipfit.tasks.data.dataset import Dataset, Split
from chipfit.tasks.data.registry import DATASETS, load, register_data

__all__ = ["DATASETS", "Dataset", "Split", "load", "register_data"]
