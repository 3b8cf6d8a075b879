"""The units of bare machines, and the page's own commands on a head and a node."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from jobs.cli.main import main
from tests.builders.scratch_root import (
    HOST_NETWORK,
    TOOLS,
    Image,
    check_run,
    debian,
    pip_settings,
    tracked_copy,
)
from tests.structure import ROOT

UNITS = sorted((ROOT / "infra" / "ray" / "systemd").glob("*.service"))
SETTINGS = UNITS[0].with_name("environment")
PAGE = ROOT / "docs" / "how-to" / "bare-machines.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
MAX_EXPOSURE = 40  # tenths, of systemd-analyze; a unit without any protection has 96
ANALYZE = shutil.which("systemd-analyze")
STANDIN = ROOT / "tests" / "builders" / "standin_systemctl.py"


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if ANALYZE is None:
        pytest.skip("systemd-analyze is missing: apt-get install systemd")
    return subprocess.run([ANALYZE, *arguments], capture_output=True, text=True, check=False)


def verified(folder: Path, change: tuple[str, str] = ("", "")) -> str:
    """Return what systemd says about the units, with programs that this machine has."""
    copies = [folder / unit.name for unit in UNITS]
    for unit, copy in zip(UNITS, copies, strict=True):
        text = re.sub(r"/opt/nagfarm/bin/\w+", "/bin/true", unit.read_text())
        copy.write_text(text.replace(*change) if change[0] else text)
    finished = analyze("verify", *copies)
    return finished.stdout + finished.stderr + (f"{finished.returncode}" * finished.returncode)


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    assert len(UNITS) == 2
    assert verified(tmp_path) == ""


def test_systemd_would_notice_a_wrong_key(tmp_path: Path) -> None:
    assert "Restrat" in verified(tmp_path, ("Restart=", "Restrat="))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_takes_away_the_rights_that_ray_does_not_need(unit: Path) -> None:
    finished = analyze("security", "--offline=true", f"--threshold={MAX_EXPOSURE}", unit)
    assert finished.returncode == 0, finished.stdout


def test_the_variables_of_the_units_are_no_settings_of_nagfarm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both the units and a user of the machine run nagfarm with them, with models to fetch too."""
    for name, value in re.findall(r"^(\w+)=(\S*)$", SETTINGS.read_text(), re.MULTILINE):
        monkeypatch.setenv(name, value.strip('"'))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("NAGFARM_FETCH", "shapes-wan")
    assert all("models --fetch $NAGFARM_FETCH" in unit.read_text() for unit in UNITS)
    assert main(["models", "--fetch", "shapes-wan"]) == 0


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_driver_on_the_machine_finds_rays_sockets(unit: Path) -> None:
    """They must not lie in the `/tmp` of the unit alone; and other users must not change them."""
    text = unit.read_text()
    (folder,) = re.findall(r"--temp-dir=(\S+)", text)
    (state,) = re.findall(r"^StateDirectory=(\S+)$", text, re.MULTILINE)
    assert folder.startswith(f"/var/lib/{state}/")
    assert "\nStateDirectoryMode=0700\n" in text
    assert f"ExecStartPre=/usr/bin/mkdir -p {folder}\n" in text


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_stop_drains_by_a_program_that_the_page_installs(unit: Path) -> None:
    text = unit.read_text().replace("\\\n", "")
    (stop,) = re.findall(r"^ExecStop=.*/python (\S+) (\d+)$", text, re.MULTILINE)
    (limit,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert int(stop[1]) < int(limit)
    lines = re.findall(r"^install --mode=644 (\S+\.py) (\S+)$", PAGE.read_text(), re.MULTILINE)
    ((source, folder),) = lines
    assert str(Path(folder, Path(source).name)) == stop[0]
    assert (ROOT / source).exists()


def test_each_variable_of_a_unit_is_set_in_the_file_of_settings() -> None:
    settings = (ROOT / "infra" / "ray" / "systemd" / "environment").read_text()
    used = {name for unit in UNITS for name in re.findall(r"\$\{?(NAGFARM_\w+)", unit.read_text())}
    assert used <= set(re.findall(r"^(\w+)=", settings, re.MULTILINE))


def commands_of_the_page() -> dict[str, str]:
    """Return the commands of each section of the page."""
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    return {section.splitlines()[0]: "".join(BLOCK.findall(section)) for section in sections}


@contextlib.contextmanager
def two_networks() -> Generator[tuple[str, str]]:
    """Yield the names of two network namespaces, of the page's head and of a node, with a cable."""
    head, node = f"nf-head-{os.getpid()}", f"nf-node-{os.getpid()}"
    try:
        for name in (head, node):
            check_run("ip", "netns", "add", name)
        cable = ("ip", "link", "add", "eth0", "netns", head, "type", "veth")
        check_run(*cable, "peer", "name", "eth0", "netns", node)
        for name, address in ((head, "10.0.0.10/24"), (node, "10.0.0.11/24")):
            check_run("ip", "-n", name, "address", "add", address, "dev", "eth0")
            for link in ("lo", "eth0"):
                check_run("ip", "-n", name, "link", "set", link, "up")
            check_run("ip", "-n", name, "route", "add", "default", "dev", "eth0")
        yield head, node
    finally:
        for name in (head, node):
            subprocess.run(["ip", "netns", "delete", name], check=False)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_pages_commands_lead_to_the_first_clips(tmp_path: Path) -> None:
    """A head and a node share a root, but no network, no processes and no temporary files."""
    if os.geteuid() != 0:
        pytest.skip("only root can change its root")
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"{', '.join(lacking)} missing: apt-get install debootstrap iproute2")
    checkout = tracked_copy(tmp_path / "checkout")
    machine = Image(debian("bookworm", tmp_path / "root"), folder="/root/nagfarm")
    (machine.root / "root" / "nagfarm").mkdir()
    shutil.copytree(checkout, machine.root / "root" / "nagfarm", dirs_exist_ok=True)
    commands = commands_of_the_page()
    settings, places = pip_settings()
    install = commands["Every machine"].splitlines(keepends=True)
    packages, rest = "apt-get update\n" + install[0], "".join(install[1:])
    assert packages.count("apt-get") == 2
    assert "pip install" in rest
    machine.run(["sh", "-ec", packages], network=HOST_NETWORK)
    machine.run(["sh", "-ec", rest], mounts=places, environment=settings, network=HOST_NETWORK)
    program = machine.root / "usr" / "local" / "bin" / "systemctl"
    program.write_text(f"#!/usr/bin/python3\n{STANDIN.read_text()}")
    program.chmod(0o755)
    log = "/run/standin/nagfarm-{}.log"
    own = ("/tmp", "/run", "/var/lib/nagfarm")
    private = "mkdir -p /var/lib/nagfarm\n" + "".join(f"mount -t tmpfs tmpfs {x}\n" for x in own)
    up = "until grep -q 'Ray runtime started' {0}; do sleep 0.2; done\n"
    head_script = (
        private + commands["The head"] + up.format(log.format("head"))
        + "touch /root/head-is-up; until [ -e /root/node-is-up ]; do sleep 0.2; done\n"
        + commands["The first clips"].replace("s3://renders", "/srv")
        + "! env -u RAY_AUTH_MODE -u RAY_AUTH_TOKEN_PATH ray job submit -- nagfarm --version\n"
        + "cd examples; export RAY_ADDRESS=10.0.0.10:6379\n"
        + "nagfarm render shapes.yaml --limit 3 --output /srv/first && echo a driver joined\n"
        + "touch /root/all-is-done; until [ -e /root/node-is-down ]; do sleep 0.2; done\n"
    )  # fmt: skip
    node_script = (
        private + "until [ -e /root/head-is-up ]; do sleep 0.2; done\n"
        + commands["The machines that render"] + up.format(log.format("node"))
        + "touch /root/node-is-up; until [ -e /root/all-is-done ]; do sleep 0.2; done\n"
        + "systemctl stop nagfarm-node; touch /root/node-is-down; exec sleep infinity\n"
    )  # fmt: skip
    (machine.root / "srv").chmod(0o777)
    with two_networks() as (head, node):
        other = subprocess.Popen(
            machine.argv(["sh", "-ec", node_script], network=node), stdin=subprocess.DEVNULL
        )
        try:
            said = machine.run(["sh", "-ec", head_script], network=head)
        finally:
            other.kill()
            other.wait()
    assert "2 committed" in said, said
    assert "a driver joined" in said, said
    assert "token authentication is enabled" in said  # for the job that showed none
