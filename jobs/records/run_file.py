"""The first file of a run, run.json: its manifest, configuration, models, versions and machines."""

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.records.keys import check_run_id
from jobs.records.run_status import RunDeadline
from jobs.records.schema import check_time
from jobs.records.strict_json import from_dataclass
from jobs.settings.run_config import RunConfig
from jobs.timetable.dated_output import OutputDay
from jobs.types import ModelIdentity


@dataclass(frozen=True)
class ManifestIdentity:
    """The manifest of a run.

    Args:
        name: its name, by default that of its file.
        sha256: digest of the file.
    """

    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class RunFile:
    """The plan and the surroundings of a run, as they were at its start.

    Args:
        output: URI of the output.
        output_day: day after which the output is named; null if it has no {date} and no {week}.
        deadline: moment at which the run must have ended; null if it has no deadline.
        num_clips: clips of the manifest.
        num_done_before: clips that were committed before this run.
        num_pending: clips that the run was to render.
        config: all settings of the run.
        models: the models of the plan.
        versions: version of nagfarm and of each library that can change pixels.
        nodes: id, host and resources of each node of the cluster.
    """

    run_id: str
    started_at: str
    output: str
    output_day: OutputDay | None
    deadline: RunDeadline | None
    manifest: ManifestIdentity
    num_clips: int
    num_done_before: int
    num_pending: int
    config: RunConfig
    models: tuple[ModelIdentity, ...]
    versions: Mapping[str, str]
    nodes: tuple[Mapping[str, object], ...]

    def __post_init__(self) -> None:
        check_run_id(self.run_id)
        check_time("started_at", self.started_at)

    def document(self) -> Mapping[str, object]:
        """Return the JSON object of the file."""
        return from_dataclass(self)
