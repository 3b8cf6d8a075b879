"""The errors of this library: one tree under `NagError`. Loads without torch."""

from typing import Self


class NagError(Exception):
    """Base of every error that this library raises on purpose."""


class NagParameterError(NagError, ValueError):
    """A parameter is outside its range, or the parameters belong to no known method.

    Attributes:
        fields: names of the parameters at fault, the likeliest first. Set after construction,
            since an error whose constructor takes more than its message does not survive pickling.
    """

    fields: tuple[str, ...] = ()

    @classmethod
    def of(cls, message: str, *fields: str) -> Self:
        """Return an error that names the parameters at fault."""
        error = cls(message)
        error.fields = fields
        return error


class NagTextError(NagError, ValueError):
    """The negative prompt's embeddings do not fit the call, or the text was changed on its way."""


class NagCoverageError(NagError):
    """Installed guidance no longer reaches every text cross-attention of the pipeline."""


class UnnamedCallError(NagError):
    """The pipeline does not name its transformer's calls, so the unconditional one is unknown."""


class ForeignCallError(NagError):
    """A call of the guided transformer was not made by the pipeline that guidance is on."""


class UnsupportedCallError(NagError, NotImplementedError):
    """A guided call hands an attention something that guidance does not take, such as a mask."""


class GuidedCopyError(NagError):
    """A model was copied or pickled while it is guided."""


class InstallationError(NagError):
    """Base of the reasons why guidance cannot be installed on a pipeline."""


class UnsupportedPipelineError(InstallationError):
    """The pipeline has a transformer of an unknown class, or has none."""


class UnsupportedProcessorError(InstallationError):
    """A text cross-attention has an attention processor that guidance cannot replace."""


class AlreadyInstalledError(InstallationError):
    """Guidance is already installed on this pipeline."""
