import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder of the published implementations' numbers."""
    folder = os.environ.get("MOIR_PARITY")
    if not folder:
        pytest.skip("MOIR_PARITY is unset: no numbers of the published implementations here")
    return Path(folder)


@pytest.fixture(scope="session")
def fixtures() -> Path:
    return Path(__file__).parents[1] / "fixtures"


@pytest.fixture(autouse=True)
def _one_thread_one_seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
