"""The error tree of the batch. Loads without torch.

Every class says, for the failure policy, which kind of failure it is and whether another attempt may pass. All take
one message and nothing else: an exception with a constructor of its own does not survive Ray's pickling.
"""

from typing import ClassVar, Literal

FailureClass = Literal["request", "clip", "memory", "worker", "stall", "store", "code"]


class JobError(Exception):
    """Base of everything that jobs/ raises on purpose."""

    failure_class: ClassVar[FailureClass] = "code"
    may_pass_on_retry: ClassVar[bool] = False


class RefusedError(JobError):
    """Bad input, found before anything ran."""

    failure_class = "request"


class ManifestError(RefusedError):
    """The manifest is unreadable or one of its rows is wrong; the message begins with file and line."""


class UnknownModelError(RefusedError):
    """No model's YAML has this name."""


class ConfigError(RefusedError):
    """The run's configuration is unreadable or wrong."""


class OutputUriError(RefusedError):
    """The output URI is not one that clips can be written to."""


class NoClusterError(RefusedError):
    """Ray cannot be reached or started."""


class PlacementError(RefusedError):
    """The cluster has no place for a group of the size that is asked for."""


class LeaseHeldError(RefusedError):
    """Another driver is at work on this output."""


class LeaseLostError(JobError):
    """Another driver has taken this output, which this one must leave to it."""


class StoreError(JobError):
    """The store did not do what was asked."""

    failure_class = "store"


class StoreRefusedError(StoreError):
    """The store is there and says no: wrong credentials, no such bucket, no permission."""


class StoreUnavailableError(StoreError):
    """The store cannot be reached, is overloaded or full, or lost what was sent, after the client's own retries."""

    may_pass_on_retry = True


class DiskFullError(StoreUnavailableError):
    """The worker's disk takes no more encoded clips. They wait, as they do for the store."""


class CredentialsExpiredError(StoreUnavailableError):
    """The store's credentials were good and are over; it takes clips again once they are renewed."""


class ObjectExistsError(StoreError):
    """A conditional write found the object already there."""


class ObjectMissingError(StoreError):
    """There is no object under that key."""


class RecordError(StoreError):
    """What lies under a record's key is not a record that this version reads, or would not be one if written."""


class EncodeError(JobError):
    """ffmpeg did not make an MP4 of the frames."""

    failure_class = "clip"


class EncoderKilledError(EncodeError):
    """Something killed ffmpeg, most likely a machine that is out of memory."""

    failure_class = "memory"
    may_pass_on_retry = True


class CheckError(JobError):
    """The MP4 does not decode to what was asked for."""

    failure_class = "clip"


class SpoolError(JobError):
    """The folder for encoded clips on this machine cannot be trusted."""


class NoWorkersError(JobError):
    """No worker can be had, or none can load the model: the run stops."""


class TooManyFailuresError(JobError):
    """So large a share of the clips was given up that the rest is not worth its price: the run stops."""


class StoppedError(JobError):
    """Somebody asked the run to stop."""
