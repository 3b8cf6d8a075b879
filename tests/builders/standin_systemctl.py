"""Stand in for `systemctl` in a scratch root, where no systemd runs: start a service's commands.

Copied into the root as a program. It reads the keys that nagfarm's units use to start a service,
and refuses a key of `[Service]` that it does not know, unless it only takes rights away.
"""

import contextlib
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

UNITS, RUN = Path("/etc/systemd/system"), Path("/run/standin")
USED = (
    "User", "EnvironmentFile", "Environment", "LoadCredential", "ExecStartPre", "ExecStart",
    "ExecStop", "StateDirectory", "WorkingDirectory", "UMask",
)  # fmt: skip
UNUSED = (
    "Restart", "RestartSec", "TimeoutStartSec", "TimeoutStopSec", "LimitNOFILE", "TasksMax",
    "PrivateTmp", "NoNewPrivileges", "CapabilityBoundingSet", "LockPersonality",
    "SystemCallArchitectures", "StateDirectoryMode",
)  # fmt: skip


def read_unit(name: str) -> dict[str, list[str]]:
    """Return the values of each key of `[Service]`, in the file's order."""
    text = (UNITS / f"{name}.service").read_text().replace("\\\n", " ")
    keys: dict[str, list[str]] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            is_known = key in (*USED, *UNUSED) or key.startswith(("Protect", "Restrict"))
            assert is_known, f"{name}: {key} is not understood here"
            keys.setdefault(key, []).append(value)
    return keys


def environment_of(keys: dict[str, list[str]], credentials: Path) -> dict[str, str]:
    variables: dict[str, str] = {}
    for value in keys["Environment"]:
        for word in shlex.split(value.replace("%d", str(credentials))):
            variable, _, text = word.partition("=")
            variables[variable] = text
    for path in keys["EnvironmentFile"]:  # wins over the unit's own
        for line in Path(path).read_text().splitlines():
            if line and not line.startswith("#"):
                variable, _, text = line.partition("=")
                variables[variable] = text.strip('"')
    return variables


def expanded(line: str, variables: dict[str, str]) -> list[str]:
    """Return a command line's words: `${X}` is a part of a word, `$X` any number of words."""
    words: list[str] = []
    for word in shlex.split(line):
        if word.startswith("$") and not word.startswith("${"):
            words += variables.get(word[1:], "").split()
            continue
        words.append(re.sub(r"\$\{(\w+)\}", lambda match: variables[match[1]], word))
    return words


def becoming(keys: dict[str, list[str]]) -> list[str]:
    """Return the words before a command that the unit's user runs."""
    user = pwd.getpwnam(keys["User"][0])
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def start(name: str) -> None:
    """Start a unit, in which `/tmp` is a folder of its own, as `PrivateTmp` has it."""
    keys = read_unit(name)
    user = pwd.getpwnam(keys["User"][0])
    state = Path("/var/lib", keys["StateDirectory"][0])
    state.mkdir(exist_ok=True)
    os.chown(state, user.pw_uid, user.pw_gid)
    credentials = Path("/run/credentials", f"{name}.service")
    credentials.mkdir(parents=True, mode=0o711, exist_ok=True)
    for value in keys["LoadCredential"]:
        credential, _, source = value.partition(":")
        copy = credentials / credential
        shutil.copy(source, copy)
        os.chown(copy, user.pw_uid, user.pw_gid)
        copy.chmod(0o400)
    variables = environment_of(keys, credentials)
    # in a chroot the root cannot change its propagation, since nothing is mounted there
    own_mounts = ["unshare", "--mount", "--propagation=unchanged"]
    alone = [*own_mounts, "sh", "-c", 'mount -t tmpfs tmpfs /tmp && exec "$@"', "sh"]
    privileges = [*alone, *becoming(keys)]
    options: Any = {
        "env": variables, "cwd": keys["WorkingDirectory"][0], "umask": int(keys["UMask"][0], 8)
    }  # fmt: skip
    for line in keys["ExecStartPre"]:
        subprocess.run([*privileges, *expanded(line, variables)], check=True, **options)
    RUN.mkdir(exist_ok=True)
    with (RUN / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [*privileges, *expanded(keys["ExecStart"][0], variables)],
            stdout=log, stderr=log, start_new_session=True, **options,
        )  # fmt: skip
    (RUN / name).write_text(str(process.pid))


def stop(name: str) -> None:
    """Run the unit's `ExecStop`, and end what is left of it."""
    keys = read_unit(name)
    pid = int((RUN / name).read_text())
    variables = environment_of(keys, Path("/run/credentials", f"{name}.service"))
    there = ["nsenter", f"--target={pid}", "--mount", "--root", *becoming(keys)]
    for line in keys["ExecStop"]:
        subprocess.run([*there, *expanded(line, variables)], check=True, env=variables)
    with contextlib.suppress(ProcessLookupError):  # it has ended after its last worker
        os.killpg(pid, signal.SIGTERM)
    while Path("/proc", str(pid), "cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        time.sleep(0.1)


def main(arguments: list[str]) -> None:
    match arguments:
        case ["enable", "--now", name] | ["start", name]:
            start(name)
        case ["disable", "--now", name] | ["stop", name]:
            stop(name)
        case ["restart", name]:
            stop(name)
            start(name)
        case _:
            sys.exit(f"systemctl {shlex.join(arguments)}: not understood here")


if __name__ == "__main__":
    main(sys.argv[1:])
