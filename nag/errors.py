"""What nag refuses, and why."""

from typing import Self


class NagError(Exception):
    """Base of everything this library raises on purpose."""


class NagParameterError(NagError, ValueError):
    """A parameter is outside its range.

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


class NagCoverageError(NagError):
    """Not every text cross-attention of the model can be guided, or is."""


class NagTextError(NagError, ValueError):
    """The negative prompt's embeddings do not fit the call that they are to guide."""
