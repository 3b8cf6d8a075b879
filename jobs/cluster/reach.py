"""A look at the Ray cluster before this process joins it: where it is, and whether it answers.

Ray itself waits for minutes, or for ever, for a cluster that is gone: that of yesterday's
RAY_ADDRESS, or that of the address file of a killed `ray start`. So its port is tried first, with a
plain socket. Seen with ray 2.60.
"""

import os
import resource
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray._common.utils
import ray._private.services

from jobs.errors import ClusterUnreachableError, NoClusterError

REACH_S = 10.0  # for the port to accept, and again for it to answer
# The first words of a gRPC client (RFC 9113): the preface and an empty frame of settings. A server
# answers with a frame of settings, too; the fourth byte of a frame is its type.
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
FRAME_HEADER_BYTES = 9
SETTINGS_TYPE = 4
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
MIN_FREE_BYTES = 2**30  # sessions have taken some hundred MB
MIN_OPEN_FILES = 1024  # the usual limit; with 60 Ray ends this process without an exception
SHARED_MEMORY = Path("/dev", "shm")  # without it Ray takes a folder on the disk
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class ClusterAddress:
    """The address of an existing cluster.

    Args:
        host, port: address of its control service, the GCS.
        origin: the place that names it, for messages.
        remedy: advice for a user if no cluster is there.
    """

    host: str
    port: int
    origin: str
    remedy: str

    def refusal(self, reason: object) -> ClusterUnreachableError:
        """Return the error for a cluster that cannot be joined."""
        return ClusterUnreachableError(
            f"no Ray cluster at {self}, the address in {self.origin}: {reason}; {self.remedy}"
        )

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def existing_cluster() -> ClusterAddress | None:
    """Return the address that Ray would connect to, or None if it would start a cluster.

    Raises:
        NoClusterError: RAY_ADDRESS is not the address of a control service.
    """
    given = os.environ.get("RAY_ADDRESS", "")
    if "://" in given:
        raise NoClusterError(
            f"RAY_ADDRESS must be HOST:PORT of the cluster's control service, got {given}; "
            "an URL is for `ray job submit`, which runs nagfarm in the cluster"
        )
    try:
        unset: Any = None  # as `ray.init` passes it
        found = ray._private.services.canonicalize_bootstrap_address(unset)
    except (ConnectionError, ValueError, OSError) as error:
        raise NoClusterError(f"no Ray cluster: {error}; correct or unset RAY_ADDRESS") from error
    if found is None:
        return None
    host, _, port = found.rpartition(":")
    if not (port.isdigit() and 0 < int(port) < 2**16):
        raise NoClusterError(f"no Ray cluster: expected HOST:PORT in RAY_ADDRESS, got {found}")
    if given not in ("", "auto"):
        return ClusterAddress(
            host.strip("[]"), int(port), "RAY_ADDRESS", "correct or unset RAY_ADDRESS"
        )
    file = ray._common.utils.get_ray_address_file(None)
    remedy = "remove that file if the cluster is gone, or set RAY_ADDRESS=local to start another"
    return ClusterAddress(host.strip("[]"), int(port), file, remedy)


def reach(address: ClusterAddress, wait_s: float = REACH_S) -> None:
    """Check that a control service answers there, in bounded time.

    Raises:
        ClusterUnreachableError: the port accepts no connection, or the service behind it does not
            answer.
    """
    try:
        with socket.create_connection((address.host, address.port), timeout=wait_s) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in ("1", "true"):
                connection.sendall(GREETING)
                header = connection.recv(FRAME_HEADER_BYTES, socket.MSG_WAITALL)
                if len(header) < FRAME_HEADER_BYTES or header[3] != SETTINGS_TYPE:
                    raise address.refusal("another program answers there")
    except TimeoutError as error:
        raise address.refusal(f"no answer within {wait_s:g} s") from error
    except OSError as error:
        raise address.refusal(error.strerror or error) from error


def check_start() -> None:
    """Refuse to start a cluster on this machine where Ray is known to fail late or without a word.

    Raises:
        NoClusterError: a limit or a variable of this process, or this machine's network or shared
            memory, keeps Ray's processes from starting.
    """
    level = os.environ.get("PYTHONOPTIMIZE", "")
    if level.isdigit() and int(level) > 1:
        raise NoClusterError(
            f"Ray's processes do not start with PYTHONOPTIMIZE={level}, which removes docstrings "
            "that they change; unset it"
        )
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < MIN_OPEN_FILES:
        raise NoClusterError(
            f"Ray needs at least {MIN_OPEN_FILES} open files, and this shell allows {files}; "
            "raise `ulimit -n`"
        )
    if SHARED_MEMORY.is_dir() and not os.access(SHARED_MEMORY, os.W_OK):
        raise NoClusterError(
            f"Ray keeps its objects in {SHARED_MEMORY}, which cannot be written; in a container, "
            "give it room with --shm-size or a memory volume"
        )
    _check_loopback()
    check_token()


def _check_loopback() -> None:
    """Connect to a free port of this machine, as Ray's processes do with each other."""
    try:
        with socket.create_server((LOOPBACK, 0)) as server:
            socket.create_connection(server.getsockname(), timeout=REACH_S).close()
    except OSError as error:
        raise NoClusterError(
            f"Ray's processes talk to each other over {LOOPBACK}, and no connection to it is made "
            f"here: {error.strerror or error}; bring the loopback interface up (`ip link set lo "
            "up`), or free local ports"
        ) from error


def check_token() -> None:
    """Refuse a home folder in which Ray can neither read its token nor make one.

    Raises:
        NoClusterError: Ray would start with a token, has none, and cannot make one.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token").lower()
    if mode != "token" or any(os.environ.get(name) for name in TOKEN_VARIABLES):
        return
    remedy = "set HOME to a folder of this user, or RAY_AUTH_TOKEN_PATH to the file of a token"
    try:
        token = Path.home() / ".ray" / "auth_token"
    except RuntimeError as error:
        raise NoClusterError(
            f"Ray keeps its token in the home folder, and this user has none; {remedy}"
        ) from error
    try:
        if token.exists():
            token.read_bytes()
        else:  # as Ray does
            token.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=token.parent).close()
    except OSError as error:
        raise NoClusterError(
            f"Ray keeps its token in {token}, which cannot be used: {error.strerror}; {remedy}"
        ) from error


def start_remedy() -> str:
    """Return what to look at if a cluster did not start on this machine."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    folder = Path(ray._common.utils.get_default_ray_temp_dir())
    remedies = [f"Ray's logs are in {folder}/session_latest/logs; RAY_TMPDIR names another folder"]
    if folder.exists() and (free := shutil.disk_usage(folder).free) < MIN_FREE_BYTES:
        remedies.append(f"that disk has only {free / 2**20:.0f} MiB left")
    if limit != resource.RLIM_INFINITY:
        remedies.append(
            f"this shell limits the address space to {limit / 2**30:.3g} GiB, and Ray's processes "
            "reserve more than they use: `ulimit -v unlimited`"
        )
    return "; ".join(remedies)
