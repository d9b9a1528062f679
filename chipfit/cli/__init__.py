# SPDX-License-Identifier: Apache-2.0
"""The command line; thin."""

import os

# Threads of a busy machine that wait by spinning starve each other: training slows down tenfold.
# Read by the OpenMP runtime when PyTorch is imported, which no command does before this.
os.environ.setdefault("GOMP_SPINCOUNT", "0")
