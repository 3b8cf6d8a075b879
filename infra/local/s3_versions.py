"""The versions of a local S3 server's bucket, which tell how often an object was ever written."""

from typing import Any

import boto3

from jobs.records.keys import PREFIXES
from jobs.store.uri import S3Location


def enable_versions(endpoint_url: str, bucket: str) -> None:
    """Make the bucket remember every write and every deletion from now on."""
    client = _client(endpoint_url)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def count_writes(endpoint_url: str, location: S3Location) -> dict[str, int]:
    """Return how often each record of an output was written or deleted, in a versioned bucket."""
    client = _client(endpoint_url)
    own = f"{location.prefix}/"
    writes: dict[str, int] = {}
    pages = client.get_paginator("list_object_versions").paginate(
        Bucket=location.bucket, Prefix=own + PREFIXES["record"]
    )
    for page in pages:
        for entry in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
            key = entry["Key"].removeprefix(own)
            writes[key] = writes.get(key, 0) + 1
    return writes


def _client(endpoint_url: str) -> Any:
    # boto3's default session would keep the keys of an earlier server
    return boto3.Session().client("s3", endpoint_url=endpoint_url)
