"""A private network on this machine: a switch and machines, each in a network namespace.

A machine is a namespace with a name of its own, joined by a veth pair to a bridge. The bridge and
all names lie in a namespace of network and one of mounts that belong to this process alone. So no
other program sees them, two networks never meet, and the kernel removes all of it with the last
process, even after SIGKILL.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Generator, Sequence
from pathlib import Path

from infra.local.local_process import Place

SWITCH = "switch"
SUBNET = "10.77.0."  # seen by these machines alone
PREFIX_LENGTH = 24
NAMES = Path("/run/netns")  # `ip` keeps the names of namespaces there
ISOLATED = ("unshare", "--net", "--mount")


class NetworkError(Exception):
    """The network cannot be made on this machine."""


def check_rights() -> None:
    """Refuse a machine on which no network namespace can be made.

    Raises:
        NetworkError: the user is not root, a program is missing, or the kernel refuses; the message
            has the remedy.
    """
    if os.geteuid() != 0:
        raise NetworkError("network namespaces need root: run it with sudo")
    for program, package in (("ip", "iproute2"), ("unshare", "util-linux")):
        if shutil.which(program) is None:
            raise NetworkError(f"the program `{program}` is missing: apt-get install {package}")
    probe = 'ip link add probe type bridge && mount -t tmpfs none "$0"'
    tried = subprocess.run(
        [*ISOLATED, "sh", "-c", probe, str(NAMES.parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        raise NetworkError(
            f"no network can be made here: {tried.stderr.strip()}; in a container, start it with "
            "--cap-add SYS_ADMIN --cap-add NET_ADMIN, or --privileged"
        )


def isolate(command: Sequence[str]) -> None:
    """Replace this process by a command whose network and mounts are its own."""
    os.execvp(ISOLATED[0], [*ISOLATED, *command])  # noqa: S606 the caller's own command


class Network:
    """The switch and its machines, inside `private_network`."""

    def __init__(self) -> None:
        self._hosts: dict[str, str] = {}

    def add(self, name: str) -> Place:
        """Add a machine, and return how programs get there. It also is its host name."""
        host = f"{SUBNET}{len(self._hosts) + 2}"
        _ip("netns", "add", name)
        _ip(*f"link add {name} type veth peer name eth0 netns {name}".split())
        _ip(*f"link set {name} master {SWITCH} up".split())
        _ip(*f"-netns {name} link set lo up".split())
        _ip(*f"-netns {name} address add {host}/{PREFIX_LENGTH} dev eth0".split())
        _ip(*f"-netns {name} link set eth0 up".split())
        self._hosts[name] = host
        rename = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name)
        return Place(host, ("ip", "netns", "exec", name, *rename))

    def pull_cable(self, name: str) -> None:
        """Take the link of a machine down, at the switch: nothing gets in or out."""
        _ip("link", "set", name, "down")

    def plug_in(self, name: str) -> None:
        _ip("link", "set", name, "up")

    def remove(self) -> None:
        """Remove all machines and the switch. The machines' processes must have ended."""
        while self._hosts:
            name, _ = self._hosts.popitem()
            _ip("netns", "delete", name)
        _ip("link", "delete", SWITCH)


@contextlib.contextmanager
def private_network() -> Generator[Network]:
    """Make a switch that this process is joined to. Needs `isolate` before."""
    with _own_names():
        _ip("link", "set", "lo", "up")
        _ip("link", "add", SWITCH, "type", "bridge")
        network = Network()
        try:
            _ip("address", "add", f"{SUBNET}1/{PREFIX_LENGTH}", "dev", SWITCH)
            _ip("link", "set", SWITCH, "up")
            yield network
        finally:
            network.remove()


@contextlib.contextmanager
def _own_names() -> Generator[None]:
    """Hide the machine's own names of namespaces behind an empty folder."""
    is_new = not NAMES.exists()
    NAMES.mkdir(mode=0o755, exist_ok=True)
    _run("mount", "-t", "tmpfs", "none", str(NAMES))
    try:
        yield
    finally:
        _run("umount", "--lazy", str(NAMES))
        if is_new:
            with contextlib.suppress(OSError):  # another program uses it now
                NAMES.rmdir()


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise NetworkError(f"`{' '.join(command)}` failed: {ended.stderr.strip()}")
