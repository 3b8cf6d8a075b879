from collections.abc import Iterator

import pytest
import torch

from tests.pipelines.context_parallel.ranks import Ranks


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    started = Ranks(tmp_path_factory.mktemp("groups"))
    yield started
    started.close()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread, as each rank does; another number of threads rounds sums differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
