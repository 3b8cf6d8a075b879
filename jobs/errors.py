"""The error tree of the batch. Loads without torch.

Each class states the kind of failure it is and whether a retry may help. Its constructor takes one
message and nothing else: an exception with a constructor of its own does not survive Ray's
pickling.
"""

from typing import ClassVar, Literal

FailureClass = Literal["request", "clip", "memory", "worker", "stall", "store", "code"]


class JobError(Exception):
    """Base class of all errors that jobs/ raises on purpose."""

    failure_class: ClassVar[FailureClass] = "code"
    may_pass_on_retry: ClassVar[bool] = False


class RefusedError(JobError):
    """Bad input, found before anything ran."""

    failure_class = "request"


class ManifestError(RefusedError):
    """The manifest is unreadable or a row is wrong. The message begins with file and line."""


class UnfinishedRowError(ManifestError):
    """The text ends within a row, perhaps since it is still being written."""


class RowValueError(ValueError):
    """A row holds a field or a value that it must not; a ManifestError adds file and line."""


class UnknownModelError(RefusedError):
    """No model's YAML has this name."""


class ConfigError(RefusedError):
    """The run's configuration is unreadable or wrong."""


class UnwritableError(RefusedError):
    """A file or a folder of an option cannot be written."""


class OutputUriError(RefusedError):
    """The output URI cannot hold clips."""


class NoClusterError(RefusedError):
    """Ray cannot be reached or started."""


class ClusterUnreachableError(NoClusterError):
    """An existing Ray cluster does not answer."""


class NodeSilentError(NoClusterError):
    """A node of the Ray cluster is gone, or does not answer."""


class PlacementError(RefusedError):
    """The cluster has too few devices for a group of the requested size."""


class LeaseHeldError(RefusedError):
    """Another driver holds the lease of this output, until it ends or its lease expires."""


class LeaseUnusableError(RefusedError):
    """The lease of this output cannot be read or be followed by another, and never expires."""


class LeaseLostError(JobError):
    """Another driver took the lease of this output, so this driver must stop."""


class StoreError(JobError):
    """The store did not do what was asked.

    The class itself and the errors of single objects are of the class "code": one object is not as
    it should be, while the store works.
    """


class StoreRefusedError(StoreError):
    """The store answers and refuses: wrong credentials, no such bucket, no permission."""

    failure_class = "store"


class StoreUnavailableError(StoreError):
    """The store is unreachable, overloaded or full, or lost data, after the client retried."""

    failure_class = "store"
    may_pass_on_retry = True


class DiskFullError(StoreUnavailableError):
    """The worker's disk is full. Encoded clips wait for space, as they wait for the store."""


class CredentialsExpiredError(StoreUnavailableError):
    """The store's credentials have expired; it takes clips again once they are renewed."""


class ObjectExistsError(StoreError):
    """A conditional write found the object already there."""


class ObjectMissingError(StoreError):
    """The store has no object under that key."""


class RecordError(StoreError):
    """A record is invalid, or this version cannot read it."""


class EncodeError(JobError):
    """ffmpeg could not make an MP4 of the frames."""

    failure_class = "clip"


class EncoderKilledError(EncodeError):
    """A signal killed ffmpeg, most likely on a machine that is out of memory."""

    failure_class = "memory"
    may_pass_on_retry = True


class MemoryShortError(JobError):
    """A device has too little memory for every clip of its worker, by estimate.

    Another device may have more, and so may this one once other processes leave it.
    """

    failure_class = "memory"
    may_pass_on_retry = True


class CheckError(JobError):
    """The MP4 does not decode to the requested frames."""

    failure_class = "clip"


class InputError(JobError):
    """An image or a video that a clip begins with is missing, damaged, or not one."""

    failure_class = "clip"


class SpoolError(JobError):
    """The spool, the folder for encoded clips on this machine, cannot be used or trusted."""

    failure_class = "worker"
    may_pass_on_retry = True


class ClusterLostError(JobError):
    """The Ray cluster is gone, or has no node left: the run stops."""


class ModelFailedError(JobError):
    """The clips of one model cannot go on. The run renders those of the other models first."""


class NoWorkersError(ModelFailedError):
    """No worker can be started for the model."""

    failure_class = "worker"


class ModelNotLoadedError(NoWorkersError):
    """No worker can load the model."""


class TooManyFailuresError(ModelFailedError):
    """Too large a share of the model's clips is quarantined."""


class StoppedError(JobError):
    """The run was asked to stop."""


class DeadlineReachedError(StoppedError):
    """Clips are left at the deadline that the run was given."""


class OutputError(StoppedError):
    """The output of a command, which is its result, cannot be written."""


class SideThreadError(JobError):
    """A thread that the driver relies on has died of an exception: the run stops."""


class TableError(JobError):
    """A table for other programs cannot be written."""


class NotificationError(JobError):
    """A webhook did not take a message."""

    may_pass_on_retry = True


class WebhookRefusedError(NotificationError):
    """A webhook refused a message for good, or its URL cannot be used."""

    may_pass_on_retry = False
