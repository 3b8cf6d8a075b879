"""What every test may ask for: a real S3 server, and an environment without anybody's own AWS settings."""

import os
from collections.abc import Iterator

import pytest

from infra.local.s3_server import Identity, LocalS3


@pytest.fixture(scope="session")
def s3_server() -> Iterator[LocalS3]:
    """One server for the whole run, with the bucket `renders`, and an identity besides that may only read it."""
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
def s3_environment(s3_server: LocalS3, no_aws_environment: None, monkeypatch: pytest.MonkeyPatch) -> LocalS3:
    """The server, and the variables with which boto3 finds it."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server
