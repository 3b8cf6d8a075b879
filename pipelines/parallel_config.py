"""The number of devices that render one clip, and the kind of context parallelism. Needs no torch.

Checks the values alone; `divisibility` checks them against a model and a size.
"""

from dataclasses import dataclass

from pipelines.errors import ModelConfigError

MAX_RANKS = 10**19  # sanity bound; keeps error messages short


@dataclass(frozen=True)
class ParallelConfig:
    """The context parallelism of one clip. It changes pixels by rounding alone, so no clip's id.

    Args:
        ulysses: ranks that exchange attention heads for tokens before and after self-attention.
        ring: ranks that keep their tokens and pass keys and values around. With `ulysses`, the
            group has the product of both.
        across_hosts: True if the ranks may be on several machines, False to keep them on one.
    """

    ulysses: int = 1
    ring: int = 1
    across_hosts: bool = False

    def __post_init__(self) -> None:
        for name in ("ulysses", "ring"):
            number = getattr(self, name)
            if number < 1:
                raise ModelConfigError(f"parallel.{name} must be at least 1, not {_shown(number)}")
            if number > MAX_RANKS:
                raise ModelConfigError(
                    f"parallel.{name} must be at most {MAX_RANKS}, not {_shown(number)}"
                )
        if self.across_hosts and self.degree == 1:
            raise ModelConfigError(
                "parallel.across_hosts is for groups: give ulysses or ring above 1, or leave it out"
            )

    @property
    def degree(self) -> int:
        """The number of ranks, and so of devices, in one group."""
        return self.ulysses * self.ring

    def __str__(self) -> str:
        parts = [
            f"{name} {getattr(self, name)}"
            for name in ("ulysses", "ring")
            if getattr(self, name) > 1
        ]
        return (" x ".join(parts) or "one device") + (" across hosts" if self.across_hosts else "")


def _shown(number: int) -> str:
    # str() raises ValueError for a number of more than 4300 digits.
    return str(number) if abs(number) < 10**9 else f"a number of {number.bit_length()} bits"


ONE_DEVICE = ParallelConfig()
