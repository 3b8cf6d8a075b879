"""What a model or a request can do wrong, as seen by pipelines/. Loads without torch."""

from typing import Self


class PipelineError(Exception):
    """Base of everything that pipelines/ raises on purpose. A retry cannot help."""


class ModelConfigError(PipelineError):
    """A model's YAML is missing, unreadable or inconsistent."""


class ModelNotFoundError(PipelineError):
    """The model's weights are not where its YAML says."""


class ModelFolderError(PipelineError):
    """The model's folder is there but broken or unsafe."""


class FrameCheckError(PipelineError):
    """What the model made is no picture."""


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
    """Something is wrong with the ranks of a group, which a group made anew may be free of; not with the clip."""


class RankLostError(GroupError):
    """The process of a rank is gone, or nobody can reach it."""


class RankPreemptedError(RankLostError):
    """The machine of a rank was taken away on purpose."""


class RankSilentError(GroupError):
    """A rank is there and does not answer in time."""


class RanksDisagreeError(GroupError):
    """The ranks of a group have come to different latents, so that none of them can be believed."""


class GroupBrokenError(GroupError):
    """The ranks have no process group, since an earlier clip broke it; this one was not begun."""


class ShardingError(PipelineError):
    """The model cannot be shared out among the ranks of this process group as asked."""
