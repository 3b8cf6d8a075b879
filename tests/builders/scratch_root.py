"""Run commands in a folder with a Linux of its own, as a container does, without an engine.

A `chroot` with its own mounts and processes, the given variables and no others, and a network of
its own, the host's, or one that the caller has made. Needs root.
"""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.structure import ROOT, tracked

TOOLS = ("debootstrap", "unshare", "chroot", "setpriv", "ip")
MIRROR = "http://deb.debian.org/debian"
HOST_NETWORK, NO_NETWORK = KINDS_OF_NETWORK = ("host", "none")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Image:
    """A stage after its instructions so far: its files, and how its processes are started."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    folder: str = "/"
    user: str = "0:0"
    shell: tuple[str, ...] = ("/bin/sh", "-c")
    healthcheck: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def run(
        self,
        command: Sequence[str],
        *,
        user: str | None = None,
        mounts: Mapping[str, Path] | None = None,
        environment: Mapping[str, str] | None = None,
        network: str = NO_NETWORK,
    ) -> str:
        """Run a command in this image and return what it prints. The arguments are as of `argv`.

        Raises:
            AssertionError: the command failed; the message holds all that it printed.
        """
        finished = subprocess.run(
            self.argv(command, user=user, mounts=mounts, environment=environment, network=network),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        printed = finished.stdout + finished.stderr
        assert finished.returncode == 0, f"{shlex.join(command)}: {finished.returncode}\n{printed}"
        return printed

    def argv(
        self,
        command: Sequence[str],
        *,
        user: str | None = None,
        mounts: Mapping[str, Path] | None = None,
        environment: Mapping[str, str] | None = None,
        network: str = NO_NETWORK,
    ) -> list[str]:
        """Return the command of this machine that runs one in the image; all ends with it.

        Args:
            user: number of the user and of its group, `1000:0`; None for the image's own.
            mounts: folders and files of this machine, by their places in the image; read-only.
            environment: variables besides the image's own.
            network: HOST_NETWORK; NO_NETWORK, which has the loopback alone; or the name of a
                network namespace.
        """
        uid, gid = (user or self.user).split(":")
        isolated = network == NO_NETWORK
        variables = {**self.environment, **(environment or {})}
        return [
            *(["ip", "netns", "exec", network] if network not in KINDS_OF_NETWORK else []),
            *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
            *(["--net"] if isolated else []),
            *("bash", "-ec", self._script(mounts or {}, has_loopback=not isolated), "bash"),
            *("chroot", str(self.root), "env", "-i", f"--chdir={self.folder}"),
            *(f"{name}={value}" for name, value in variables.items()),
            *("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *command),
        ]

    def _script(self, mounts: Mapping[str, Path], *, has_loopback: bool) -> str:
        """Return the shell's lines that mount what an engine mounts, and then run the arguments."""
        root = shlex.quote(str(self.root))
        lines = [
            f"mount -t proc proc {root}/proc",
            f"mount --rbind /dev {root}/dev",
            f"mount -t tmpfs tmpfs {root}/dev/shm",
            f'echo "127.0.0.1 localhost $(hostname)" > {root}/etc/hosts',
            *([] if has_loopback else ["ip link set lo up"]),
        ]
        for place, source in {**mounts, "/etc/resolv.conf": Path("/etc/resolv.conf")}.items():
            target = shlex.quote(f"{self.root}{place}")
            kind = f"mkdir -p {target}" if source.is_dir() else f"touch {target}"
            lines += [
                f"mkdir -p $(dirname {target}); {kind}",
                f"mount --bind {shlex.quote(str(source))} {target}",
                f"mount -o remount,bind,ro {target}",
            ]
        return "\n".join([*lines, '"$@"'])


def pip_settings() -> tuple[dict[str, str], dict[str, Path]]:
    """Return pip's settings on this machine as variables, and what they name on its disk."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    settings: dict[str, str] = {}
    places: dict[str, Path] = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.partition(".")
        text = value.strip("'\"")
        if section in ("global", "install", ":env:") and name != "constraint":
            settings[f"PIP_{name.upper().replace('-', '_')}"] = text
            for word in text.split():
                # The pages of an index name files beside the index.
                local = urlsplit(word).path if word.startswith("file://") else ""
                place = str(Path(local).parent) if local else word
                places |= {place: Path(place)} if Path(place).is_absolute() else {}
    return settings, {place: path for place, path in places.items() if path.exists()}


def debian(suite: str, root: Path) -> Path:
    """Make the root of a fresh Debian with its essential packages, and return it."""
    check_run("debootstrap", "--variant=minbase", suite, str(root), MIRROR)
    return root


def tracked_copy(folder: Path) -> Path:
    """Copy the files that git tracks or would add, as a fresh checkout has them."""
    for name in tracked(""):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def check_run(*command: str) -> None:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
