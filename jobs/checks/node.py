"""The checks of one node of a cluster, as a task on that node runs them.

Each check runs in a thread of its own and has a deadline, so that one that hangs is named and does
not hide the others. Torch is imported only where Ray offers GPUs.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jobs.checks.machine import (
    NVIDIA_DEVICES,
    Check,
    check_clock,
    check_devices,
    check_ffmpeg,
    check_store,
    package_versions,
)
from jobs.checks.weights import ModelQuestion, check_weights
from jobs.redaction import redact
from jobs.settings.run_config import StoreConfig
from jobs.text import counted

NODE_CHECKS = ("packages", "weights", "device", "ffmpeg", "store", "clock")  # in their order
NO_OUTPUT = "not checked; give --output URI"


@dataclass(frozen=True)
class NodeQuestion:
    """The checks that one node is asked for. It is sent to the node, so it is picklable.

    Args:
        models: models whose weights it shall have.
        output: URI of the output that it shall reach; None to leave the store out.
        store: the settings of the store.
        versions: versions of the driver's packages.
        num_cpus, num_gpus: devices that Ray offers on the node.
        limit_s: seconds that each check may take.
    """

    models: tuple[ModelQuestion, ...]
    output: str | None
    store: StoreConfig
    versions: Mapping[str, str]
    num_cpus: float
    num_gpus: float
    limit_s: float


def examine(question: NodeQuestion) -> tuple[Check, ...]:
    """Check this node."""
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("packages", partial(check_versions, question.versions)),
        ("ffmpeg", check_ffmpeg),
    ]
    if question.num_cpus or question.num_gpus:
        checks += [("weights", partial(check_weights, model)) for model in question.models]
        checks.append(("device", partial(check_offered_devices, question.num_gpus)))
    if question.output is not None:
        checks += [
            ("store", partial(check_store, question.output, question.store)),
            ("clock", partial(check_clock, question.output, question.store)),
        ]
    else:
        checks += [(name, partial(Check, name, None, NO_OUTPUT)) for name in ("store", "clock")]
    return within(question.limit_s, checks)


def within(limit_s: float, checks: Sequence[tuple[str, Callable[[], Check]]]) -> tuple[Check, ...]:
    """Run checks side by side, and return what each found, or that it took too long.

    A thread that hangs is left behind: it ends with the process.
    """
    found: dict[int, Check] = {}
    is_done = [threading.Event() for _ in checks]

    def run(index: int, name: str, check: Callable[[], Check]) -> None:
        try:
            found[index] = check()
        # Whatever it is, it is what this node has to say.
        except Exception as error:  # noqa: BLE001
            text = redact(f"{type(error).__name__}: {error}")
            found[index] = Check(name, is_ok=False, message=text)
        is_done[index].set()

    for index, (name, check) in enumerate(checks):
        threading.Thread(target=run, args=(index, name, check), daemon=True).start()
    deadline = time.monotonic() + limit_s
    for each in is_done:
        each.wait(max(0.0, deadline - time.monotonic()))
    late = f"no answer within {limit_s:g} s"
    return tuple(
        found.get(index, Check(name, is_ok=False, message=late))
        for index, (name, _) in enumerate(checks)
    )


def check_versions(drivers: Mapping[str, str]) -> Check:
    """Compare the packages here with the driver's: other versions can make other pixels."""
    own = package_versions()
    others = [
        f"{name} {own[name]} here, {version} on the driver"
        for name, version in drivers.items()
        if own[name] != version
    ]
    if others:
        message = f"{'; '.join(others)}: install the same versions"
        return Check("packages", is_ok=False, message=message)
    return Check("packages", is_ok=True, message=f"{counted(len(own), 'package')} as on the driver")


def check_offered_devices(num_gpus: float) -> Check:
    """Compare the GPUs that Ray offers here with those that torch sees.

    Args:
        num_gpus: Ray's number.
    """
    if not num_gpus:
        there = len(list(Path("/dev").glob(NVIDIA_DEVICES)))
        message = (
            f"{counted(there, 'NVIDIA device')}, and Ray offers none: start the node with "
            f"--num-gpus={there}, or without that option"
            if there
            else "no GPU; only the models that run on a CPU (shapes-*) work here"
        )
        return Check("device", is_ok=None, message=message)
    import torch

    num_seen = torch.cuda.device_count()
    if num_seen < num_gpus:
        message = (
            f"Ray offers {counted(round(num_gpus), 'GPU')}, and torch {torch.__version__} sees "
            f"{num_seen}: install a driver for its CUDA, or a build of torch with CUDA"
        )
        return Check("device", is_ok=False, message=message)
    return Check("device", is_ok=True, message=check_devices().message)
