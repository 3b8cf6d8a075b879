"""What nag refuses, and why."""


class NagError(Exception):
    """Base of everything this library raises on purpose."""


class NagParameterError(NagError, ValueError):
    """A parameter is outside its range."""


class NagCoverageError(NagError):
    """Not every text cross-attention of the model can be guided, or is."""


class NagTextError(NagError, ValueError):
    """The negative prompt's embeddings do not fit the call that they are to guide."""
