from collections.abc import Iterator

import pytest

from tests.pipelines.parallel.ranks import Ranks


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    started = Ranks(tmp_path_factory.mktemp("groups"))
    yield started
    started.close()
