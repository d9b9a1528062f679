# SPDX-License-Identifier: Apache-2.0
"""Methods, one file per paper, on one shared core."""
