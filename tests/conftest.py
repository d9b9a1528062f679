import pytest
import torch

# Many small networks on few cores: threads of one test would only fight with each other.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cost_table(tmp_path, monkeypatch):
    """Keep tests away from the user's own cost table."""
    monkeypatch.setenv("CHIPFIT_TABLE", str(tmp_path / "costs.sqlite"))
