import subprocess
import sys

CODE = """
import sys
from benchmarks.pruning_library import torch_pruning
assert torch_pruning().__name__ == "torch_pruning"
assert "timm" not in sys.modules
"""


def test_torch_pruning_is_imported_without_timm():
    assert subprocess.run([sys.executable, "-c", CODE], check=False).returncode == 0
