"""Fixtures for all tests: a real S3 server, a real Ray cluster, and an environment without user
settings.
"""

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from infra.local.ray_cluster import NO_METRICS, LocalRay, write_token
from infra.local.s3_server import LocalS3
from infra.local.weed import Identity

gc.disable()  # until all tests are collected: it takes a fifth of the imports' time

# An example's time is the machine's, which may be busy; pytest's own time-out holds. Each run takes
# the same examples; `pytest --hypothesis-profile=random` draws new ones, as `make slow` does.
settings.register_profile("random", deadline=None, database=None, max_examples=60)
settings.register_profile("repeatable", settings.get_profile("random"), derandomize=True)
settings.load_profile("repeatable")

# ray reads these when it is imported, which a test module may do before any fixture runs
RAY_TOKEN_PATH = Path(tempfile.mkdtemp(prefix="nf-token-")) / "token"
write_token(RAY_TOKEN_PATH)
atexit.register(shutil.rmtree, RAY_TOKEN_PATH.parent, ignore_errors=True)
os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(RAY_TOKEN_PATH)})
# Torch reads it when it is imported. Test processes share the cores, and a torch of several threads
# waits for the slowest one in a loop: it took four times the processor's time of one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish() -> None:
    """Hide what the imports made from garbage collection, which takes half a second through it.

    It runs after every 20,000 objects, not after every 700: random examples make millions.
    """
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[LocalS3]:
    """Start one server for the session: the bucket `renders`, and an identity that may only read
    it.
    """
    reader = Identity.create("reader", ["Read:renders", "List:renders"])
    with LocalS3(bucket="renders", others=[reader]) as server:
        yield server


@pytest.fixture
def no_aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def s3_environment(
    s3_server: LocalS3, no_aws_environment: None, monkeypatch: pytest.MonkeyPatch
) -> LocalS3:
    """The server, and the variables with which boto3 finds it."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(scope="session")
def ray_cluster(s3_server: LocalS3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRay]:
    """One cluster of two CPUs for the whole run, whose workers reach the S3 server."""
    environment = {
        **s3_server.environment(),
        **NO_METRICS,
        # Ray kills a stopped job after 3 s. On a busy machine a driver needs more to end in order.
        "RAY_JOB_STOP_WAIT_TIME_S": "30",
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")),  # the workers' spool is there
    }
    with LocalRay(2, environment, RAY_TOKEN_PATH) as cluster:
        yield cluster


@pytest.fixture
def ray_driver(ray_cluster: LocalRay) -> Iterator[LocalRay]:
    """This process as a driver of the cluster."""
    import ray

    ray.init(address=ray_cluster.address, log_to_driver=False, configure_logging=False)
    yield ray_cluster
    ray.shutdown()
