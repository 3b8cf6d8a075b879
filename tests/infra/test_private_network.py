"""The private network of the cluster demo: cables, names that stay inside, and refusals."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.cluster_demo.network import ISOLATED, NetworkError, check_rights

ROOT = Path(__file__).parents[2]


def can_make_networks() -> bool:
    try:
        check_rights()
    except NetworkError:
        return False
    return True


needs_networks = pytest.mark.skipif(
    not can_make_networks(), reason="needs root, iproute2 and the right to make namespaces"
)
PROGRAM = """
import subprocess, sys
from infra.local.cluster_demo.network import private_network

def reaches(place, host):
    tried = "import socket, sys; socket.create_connection((sys.argv[1], 80), timeout=0.5)"
    command = [*place.prefix, sys.executable, "-c", tried, host]
    return not subprocess.run(command, stderr=subprocess.DEVNULL).returncode

with private_network() as network:
    first, second = network.add("first"), network.add("second")
    server = subprocess.Popen(
        [*second.prefix, sys.executable, "-c",
         "import socket\\nserver = socket.create_server(('', 80))\\nprint('up', flush=True)\\n"
         "while True: server.accept()[0].close()"],
        stdout=subprocess.PIPE)
    server.stdout.readline()
    name = subprocess.run([*first.prefix, "hostname"], capture_output=True, text=True).stdout
    found = [name.strip(), reaches(first, second.host)]
    network.pull_cable("second")
    found.append(reaches(first, second.host))
    network.plug_in("second")
    found.append(reaches(first, second.host))
    server.kill()
    server.wait()
    print(found, flush=True)
    input()
"""


@needs_networks
def test_machines_reach_each_other_by_their_cables_alone_and_are_seen_by_no_other_program() -> None:
    names = Path("/run/netns")
    before = sorted(names.iterdir()) if names.exists() else None
    process = subprocess.Popen(
        [*ISOLATED, sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "['first', True, False, True]"
    assert not list(names.iterdir()) if before is None else sorted(names.iterdir()) == before
    links = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    assert "switch" not in links
    process.communicate("\n")
    assert process.returncode == 0
    assert (sorted(names.iterdir()) if names.exists() else None) == before


def test_a_user_without_rights_gets_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NetworkError, match="need root: run it with sudo"):
        check_rights()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda program: None if program == "ip" else "/bin/true")
    with pytest.raises(NetworkError, match="`ip` is missing: apt-get install iproute2"):
        check_rights()


@needs_networks
def test_a_container_without_rights_gets_the_remedy() -> None:
    """A bounding set without CAP_SYS_ADMIN is what a plain container has."""
    code = "from infra.local.cluster_demo.network import check_rights; check_rights()"
    bounded = ["capsh", "--drop=cap_sys_admin", "--", "-c", 'exec "$0" -c "$1"']
    if shutil.which("capsh") is None:
        bounded = ["setpriv", "--bounding-set=-sys_admin", sys.executable, "-c", code]
    else:
        bounded += [sys.executable, code]
    ended = subprocess.run(bounded, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "in a container, start it with --cap-add SYS_ADMIN" in ended.stderr
