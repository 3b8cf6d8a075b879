"""The coverage of a pipeline, as a value that loads without torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Coverage:
    """The number of guided text cross-attentions of a pipeline, and of all.

    Example:
        >>> print(Coverage(guided=30, total=30))
        30 of 30
    """

    guided: int
    total: int

    def __str__(self) -> str:
        return f"{self.guided} of {self.total}"
