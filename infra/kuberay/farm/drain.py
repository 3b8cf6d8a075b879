"""Let a pod of the farm end in good order: its runs drain, and its Ray node gets no more work.

The preStop hook of all pods, so it runs before Ray's processes get SIGTERM. It waits until the runs
and the workers of this pod have ended, or until its time is up. On bare machines it is the ExecStop
of units.

- A run gets SIGHUP, which asks it to stop once, however often it is asked: the clips in flight have
  `workers.drain_s`, then the run releases its output.
- A node with workers is announced to Ray as leaving. So the run that uses it gives it no clip, and
  no loss is charged to a clip.

The standard library alone, since any Python of the image may run it. Sees the processes of its own
user, and in a pod of its own container, as Kubernetes separates them.
"""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

PROC = Path("/proc")
LOOK_S = 0.5
ANNOUNCE_S = 20.0  # for Ray's program to start and to reach the cluster
RUNS = {"render", "bench"}
WORKER = re.compile(r"ray::\w+Actor\b")  # titles of processes: ray::RenderActor.render
NODE_ID = "--node_id="

Processes = Mapping[int, list[str]]  # the arguments of each process, by its number


def processes(numbers: Iterable[int] | None = None) -> dict[int, list[str]]:
    """Return the arguments of this user's living processes: those with these numbers, or all."""
    found: dict[int, list[str]] = {}
    names = [path.name for path in PROC.iterdir()] if numbers is None else map(str, numbers)
    for name in filter(str.isdecimal, names):
        with contextlib.suppress(OSError):  # it has ended
            folder = PROC / name
            text = (folder / "cmdline").read_bytes().decode(errors="replace")
            if text and folder.stat().st_uid == os.geteuid():  # a zombie has no text
                found[int(name)] = text.rstrip("\0").split("\0")
    return found


def runs(seen: Processes) -> set[int]:
    """Return the runs: `nagfarm render` and `nagfarm bench`, as Python sees them."""
    return {
        number
        for number, words in seen.items()
        for program, command in itertools.pairwise(words[:3])
        if Path(program).name == "nagfarm" and command in RUNS
    }


def workers(seen: Processes) -> set[int]:
    """Return the workers that Ray has started here."""
    return {number for number, words in seen.items() if WORKER.match(words[0])}


def leaving_node(seen: Processes) -> str | None:
    """Return the id of this pod's Ray node; None on a head, which Ray does not let go."""
    programs = {Path(words[0]).name: words for words in seen.values()}
    if "gcs_server" in programs:
        return None
    words = programs.get("raylet", [])
    return next((word.removeprefix(NODE_ID) for word in words if word.startswith(NODE_ID)), None)


def announce(node: str, seconds: float) -> None:
    """Tell Ray that a node leaves. A cluster that is gone, too, need not know."""
    command = ["ray", "drain-node", "--node-id", node]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "its pod ends"]
    command += ["--deadline-remaining-seconds", str(int(seconds))]
    try:
        subprocess.run(command, check=True, timeout=min(ANNOUNCE_S, seconds))
    except (OSError, subprocess.SubprocessError) as error:
        print(f"Ray does not know that this node leaves: {error}", file=sys.stderr)


def drain(seconds: float, numbers: Iterable[int] | None = None) -> bool:
    """Drain the runs and the node of this pod, and return True if nothing is left of them.

    Args:
        seconds: longest time.
        numbers: the processes of this pod; None takes all.
    """
    end = time.monotonic() + seconds
    seen = processes(numbers)
    for number in runs(seen):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGHUP)
    node = leaving_node(seen)
    if node is not None and workers(seen):
        announce(node, seconds)
    while runs(seen) or workers(seen):
        if time.monotonic() >= end:
            return False
        time.sleep(LOOK_S)
        seen = processes(numbers)
    return True


if __name__ == "__main__":
    sys.exit(0 if drain(float(sys.argv[1])) else 1)
