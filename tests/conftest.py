import os

import pytest
import torch

from chipfit.errors import DataUnavailable

# Many small networks on few cores: threads of one test would only fight with each other.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cost_table(tmp_path, monkeypatch):
    """Keep tests away from the user's own cost table."""
    monkeypatch.setenv("CHIPFIT_TABLE", str(tmp_path / "costs.sqlite"))


@pytest.fixture(scope="session")
def fetched():
    """Return what a function fetches; where it cannot be reached the test is skipped, or fails."""

    def get(fetch):
        try:
            return fetch()
        except DataUnavailable as error:
            if os.environ.get("CHIPFIT_REQUIRE_DOWNLOADS"):
                raise
            pytest.skip(f"not cached and not reachable: {error}")

    return get
