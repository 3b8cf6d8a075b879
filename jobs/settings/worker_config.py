"""The settings of workers: their number, devices and nodes, sharing, and their replacement.

Decides which label selectors are refused, and which setting wins for a model. Loads without torch.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from jobs.errors import ConfigError
from jobs.settings.store_config import check_at_least
from jobs.text import shown, unknown

ACCELERATOR_LABEL = "ray.io/accelerator-type"  # Ray gives it to each node with GPUs
NODE_LABEL = "ray.io/node-id"
OWN_SETTINGS = {"CPU": "num_cpus", "GPU": "num_gpus"}
MIN_SHARE = 0.01  # least part of a GPU
MIN_AMOUNT, MAX_AMOUNT = 0.0001, 1e15  # resources; Ray counts memory in bytes
_VALUE = r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
_KEY = re.compile(rf"(?:[a-zA-Z0-9.-]{{1,253}}/)?{_VALUE}")
_SELECTOR = re.compile(rf"(!?)(?:in\(({_VALUE}(?:, ?{_VALUE})*)\)|({_VALUE}))")


@dataclass(frozen=True)
class Placement:
    """The kind of node on which workers run, and the part of it that each of them takes.

    Args:
        num_gpus: GPUs of a worker that renders on GPUs: 1, or a share such as 0.5, with which two
            workers have one GPU. None takes a whole one, and lets a model with `device: auto` take
            GPUs if the cluster has any; a number lets it wait for one.
        accelerator_type: name of the GPU as Ray has it, such as `A100` or `H100`; nodes with other
            GPUs get no worker. It is the label `ray.io/accelerator-type`.
        resources: further resources of Ray that each worker, or each rank of a group, takes.
        label_selector: labels that a node must have, as Ray's selectors: `a`, `!a`, `in(a, b)`,
            `!in(a, b)`.
    """

    num_gpus: float | None = None
    accelerator_type: str | None = None
    resources: dict[str, float] = field(default_factory=dict[str, float])
    label_selector: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        if self.num_gpus is not None and not MIN_SHARE <= self.num_gpus <= 1:
            raise ConfigError(
                f"workers.num_gpus must be 1, or a share of one GPU from {MIN_SHARE}, such as "
                f"0.5, got {self.num_gpus}; for a clip on several GPUs set parallel"
            )
        for name, amount in self.resources.items():
            if name in OWN_SETTINGS:
                raise ConfigError(f"workers.resources: set workers.{OWN_SETTINGS[name]} for {name}")
            if not name or not MIN_AMOUNT <= amount <= MAX_AMOUNT:
                raise ConfigError(
                    f"workers.resources: expected a name and a number from {MIN_AMOUNT:g} to "
                    f"{MAX_AMOUNT:g}, got {shown(name)}: {shown(amount)}"
                )
        for label, selector in self.labels.items():
            _check_label(label, selector)

    @property
    def labels(self) -> dict[str, str]:
        """Return the selector of each label, that of the accelerator's type among them."""
        if self.accelerator_type is None:
            return self.label_selector
        return {**self.label_selector, ACCELERATOR_LABEL: self.accelerator_type}


@dataclass(frozen=True)
class WorkerConfig(Placement):
    """The workers of a run; the fields of `Placement` hold for all models that `models` leaves out.

    Args:
        count: the most workers that the run has at once, of all models together; it asks for as
            many at once as it has clips, so that a cluster that grows on demand does so. None
            follows the cluster: one for each device that its nodes have, also those that join
            during the run: GPUs, or on CPU its cores over `num_cpus`.
        num_cpus: cores that an actor on CPU reserves; also the number of its torch threads.
        models: placement of single models, by name; its values win, one by one.
        share: `fair` gives devices to other runs on the cluster that wait for some, after the clip
            that a worker renders, until each run has its share by weight. `first_come` keeps them.
        weight: weight of this run among those that share.
        load_timeout_s: seconds that an actor may take to load its model, from when it has its
            devices; to wait for devices that other jobs hold takes no part of it.
        wait_for_resources_s: seconds that a run without a worker waits for a cluster that has no
            node for one, such as a cluster that starts from zero nodes; None waits without end. A
            cluster that the run starts itself is not waited for.
        spool_clips: finished clips that may wait for encode and upload while the next one denoises.
        spool_folder: folder on each node in which encoded clips wait for the store. None takes the
            user's cache; name a folder on a local disk if the home folder is small or on a network.
        recycle_after_clips: number of rendered clips after which an idle actor is replaced; None
            never replaces it.
        recycle_growth_bytes: growth of an actor's memory since its first clip above which it is
            replaced; None never replaces it.
        drain_s: seconds that clips in flight may still take after a request to stop the run.
            `ray job stop` kills three seconds after it asked, unless RAY_JOB_STOP_WAIT_TIME_S
            sets another time.
    """

    count: int | None = None
    num_cpus: int = 1
    models: dict[str, Placement] = field(default_factory=dict[str, Placement])
    share: Literal["fair", "first_come"] = "fair"
    weight: float = 1.0
    load_timeout_s: float = 1800.0
    wait_for_resources_s: float | None = 1800.0
    spool_clips: int = 2
    spool_folder: str | None = None
    recycle_after_clips: int | None = 1000
    recycle_growth_bytes: int | None = 8 * 1024**3
    drain_s: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("workers", self, 1, "count", "num_cpus", "spool_clips")
        check_at_least("workers", self, 1, "recycle_after_clips", "recycle_growth_bytes")
        check_at_least("workers", self, 0, "drain_s", "wait_for_resources_s")
        check_at_least("workers", self, 1, "load_timeout_s")
        check_at_least("workers", self, 0.01, "weight")

    def placement_of(self, model: str) -> Placement:
        """Return the placement of a model: each value that `models` has for it wins."""
        own = self.models.get(model)
        if own is None:
            return self
        return Placement(
            self.num_gpus if own.num_gpus is None else own.num_gpus,
            own.accelerator_type or self.accelerator_type,
            self.resources | own.resources,
            self.label_selector | own.label_selector,
        )

    def anywhere(self) -> "WorkerConfig":
        """Return these settings for a cluster whose nodes are all alike: a device for a worker."""
        return replace(
            self, models={}, num_gpus=None, accelerator_type=None, resources={}, label_selector={}
        )

    def check_models(self, known: Iterable[str]) -> None:
        """Refuse a placement of a model that does not exist.

        Raises:
            ConfigError: `models` has another name than the catalog.
        """
        names = list(known)
        for name in self.models:
            if name not in names:
                raise ConfigError(f"workers.models: {unknown('model', name, names)}")


def matches(selector: str, value: str | None) -> bool:
    """Return True if a node matches a label's selector, as Ray sees it.

    Args:
        value: value of the node's label; None if it has no such label.
    """
    found = _SELECTOR.fullmatch(selector)
    assert found is not None, "a placement checks its selectors"
    is_not, several, one = found.groups()
    values = several.replace(" ", "").split(",") if several else [one]
    return (value in values) != bool(is_not)


def _check_label(label: str, selector: str) -> None:
    if not _KEY.fullmatch(label):
        raise ConfigError(
            "workers.label_selector: expected the name of a label, such as "
            f"{ACCELERATOR_LABEL}, got {shown(label)}"
        )
    if label == NODE_LABEL:
        raise ConfigError(
            f"workers.label_selector: {NODE_LABEL} is used for nodes that fail; give the nodes a "
            "label of their own (ray start --labels)"
        )
    if not _SELECTOR.fullmatch(selector):
        raise ConfigError(
            f"workers.label_selector: expected a, !a, in(a, b) or !in(a, b) for {label}, got "
            f"{shown(selector)}"
        )
