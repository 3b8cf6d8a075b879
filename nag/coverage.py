"""The coverage of a pipeline, as a value that loads without torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Coverage:
    """The number of guided text cross-attentions of a pipeline, and of all."""

    guided: int
    total: int

    def __str__(self) -> str:
        return f"{self.guided} of {self.total}"
