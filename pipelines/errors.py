"""Errors of models, requests and groups of ranks. Loads without torch."""

from typing import Self


class PipelineError(Exception):
    """Base class of all errors that pipelines/ raises on purpose. A retry cannot help."""


class ModelConfigError(PipelineError):
    """A model's YAML is missing, unreadable or inconsistent."""


class ModelNotFoundError(PipelineError):
    """The model's weights are missing where its YAML places them."""


class NotFetchedError(PipelineError):
    """Weights cannot be downloaded: the hub refuses, or the disk does."""


class HubUnreachableError(PipelineError):
    """The hub of the weights does not answer. Another try may help."""


class ModelFolderError(PipelineError):
    """The model's folder exists but is broken or unsafe."""


class FrameCheckError(PipelineError):
    """The model's latents, frames or sound fail the frame checks.

    Attributes:
        check: name of the check that failed: that of its limit in `FrameLimits`, "NaN", or "sound"
            for sound of a wrong form or length. Set after construction, as `RequestError.fields`
            is.
        beyond: names of all limits that the clip is beyond; empty for faults without one.
    """

    check: str = ""
    beyond: tuple[str, ...] = ()

    @classmethod
    def of(cls, message: str, check: str, beyond: tuple[str, ...] = ()) -> Self:
        """Return an error that names the check that failed."""
        error = cls(message)
        error.check, error.beyond = check, beyond
        return error


class ScoringError(PipelineError):
    """A measure is unknown, cannot be loaded, or does not apply to a clip."""


class RequestError(PipelineError, ValueError):
    """The request cannot be rendered by this model.

    Attributes:
        fields: names of the manifest's fields at fault, the likeliest first. Set after
            construction, since an error whose constructor takes more than its message does not
            survive pickling.
    """

    fields: tuple[str, ...] = ()

    @classmethod
    def of(cls, message: str, *fields: str) -> Self:
        """Return an error that names the fields at fault."""
        error = cls(message)
        error.fields = fields
        return error


class GroupError(PipelineError):
    """The ranks of a group failed, not the clip. It may work once it is formed again."""


class RankLostError(GroupError):
    """A rank's process ended, or is unreachable."""


class RankPreemptedError(RankLostError):
    """The machine of a rank was taken away on purpose."""


class RankSilentError(GroupError):
    """A rank runs but did not answer in time."""


class RanksDisagreeError(GroupError):
    """The ranks of a group came to different latents, so none of them can be trusted."""


class GroupBrokenError(GroupError):
    """The ranks have no process group, since an earlier clip broke it. This clip did not begin."""


class ShardingError(PipelineError):
    """The model cannot be sharded over the ranks of this process group as requested."""
