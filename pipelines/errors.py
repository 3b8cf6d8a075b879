"""What a model or a request can do wrong, as seen by pipelines/. Loads without torch."""


class PipelineError(Exception):
    """Base of everything that pipelines/ raises on purpose. A retry cannot help."""


class ModelConfigError(PipelineError):
    """A model's YAML is missing, unreadable or inconsistent."""


class ModelNotFoundError(PipelineError):
    """The model's weights are not where its YAML says."""


class ModelFolderError(PipelineError):
    """The model's folder is there but broken or unsafe."""


class BadPictureError(PipelineError):
    """What the model made is no picture."""


class RequestError(PipelineError, ValueError):
    """The request cannot be rendered by this model."""


class SplitError(PipelineError):
    """The model cannot be shared out among the ranks of this process group as asked."""
