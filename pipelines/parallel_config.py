"""On how many devices one clip is rendered, and how its tokens are shared out. Loads without torch.

Decides the values alone; whether a model and a size can be cut so is decided in `fitness`.
"""

from dataclasses import dataclass

from pipelines.errors import ModelConfigError

MAX_RANKS = 10**19  # more than any clip has tokens; what is larger still has no place in a message


@dataclass(frozen=True)
class ParallelConfig:
    """How the ranks of a group share one clip. Decides no pixel but for rounding, and so no clip's id.

    Args:
        ulysses: ranks that exchange attention heads for tokens before and after each self-attention.
        ring: ranks that keep their tokens and pass keys and values around; with `ulysses` the product of both.
        across_hosts: ranks may lie on several machines; else all of a group are on one.
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
        """Ranks, and so devices, of one group."""
        return self.ulysses * self.ring

    def __str__(self) -> str:
        parts = [
            f"{name} {getattr(self, name)}"
            for name in ("ulysses", "ring")
            if getattr(self, name) > 1
        ]
        return (" x ".join(parts) or "one device") + (" across hosts" if self.across_hosts else "")


def _shown(number: int) -> str:
    return (
        str(number) if abs(number) < 10**9 else f"a number of {number.bit_length()} bits"
    )  # str() of a huge one raises


ONE_DEVICE = ParallelConfig()
