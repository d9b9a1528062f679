# SPDX-License-Identifier: Apache-2.0
"""What the commands do, one file each; the command line and the Python API both call these."""
