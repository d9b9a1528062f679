# SPDX-License-Identifier: Apache-2.0
"""The command line; thin."""

import os

# Threads that wait by spinning for long starve each other on a busy machine: training slows down
# tenfold. Waiting without any spinning costs half the speed of a quiet one.
# Read by the OpenMP runtime when PyTorch is imported, which no command does before this.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")
