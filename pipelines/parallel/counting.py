"""Counts what the ranks of a group exchange: each collective of this thread, by kind, and the bytes that leave a rank.

What a collective costs in seconds is not decided here. A number of bytes is that of the least traffic any
implementation needs, not what a library puts on the wire.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.distributed_c10d import GroupName, _resolve_process_group
from torch.utils._python_dispatch import TorchDispatchMode

_NAMES = {"all_to_all_single": "all_to_all", "all_gather_into_tensor": "all_gather"}
_NAMESPACES = ("_c10d_functional", "c10d")
_NO_EXCHANGE = ("wait_tensor", "_wrap_tensor_autograd")


@dataclass(frozen=True)
class Collective:
    """One exchange, as one rank sees it.

    Args:
        kind: `all_to_all` or `all_gather`, or torch's own name of another.
        input_bytes: what this rank puts in.
        group_size: ranks that take part.
    """

    kind: str
    input_bytes: int
    group_size: int

    @property
    def sent_bytes(self) -> int:
        """What has to leave this rank: in an all-to-all all but its own share, else its input to each of the others."""
        others = self.group_size - 1
        return self.input_bytes * others // self.group_size if self.kind == "all_to_all" else self.input_bytes * others


class CollectiveCounter(TorchDispatchMode):
    """A context manager: within it each collective that this thread asks torch for is noted in `collectives`.

    Sees torch's functional collectives, which diffusers uses, and those that are called directly.
    """

    def __init__(self) -> None:
        super().__init__()
        self.collectives: list[Collective] = []

    @property
    def num_calls(self) -> dict[str, int]:
        """How many of each kind."""
        return dict(Counter(collective.kind for collective in self.collectives))

    @property
    def sent_bytes(self) -> dict[str, int]:
        """Bytes that left this rank, by kind."""
        total: Counter[str] = Counter()
        for collective in self.collectives:
            total[collective.kind] += collective.sent_bytes
        return dict(total)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        namespace, _, name = str(getattr(func, "_schema", func)).split("(")[0].split(".")[0].partition("::")
        if namespace in _NAMESPACES and name not in _NO_EXCHANGE:
            self.collectives.append(_read_call(name, args))
        return func(*args, **(kwargs or {}))


def _read_call(name: str, args: tuple[Any, ...]) -> Collective:
    groups = [arg for arg in args if isinstance(arg, str | torch.ScriptObject)]
    size = _group_size(groups[-1])
    kind = _NAMES.get(name, name)
    tensor = args[0] if isinstance(args[0], torch.Tensor) else args[1][0]  # c10d: outputs, then inputs
    return Collective(kind, tensor.numel() * tensor.element_size(), size)


def _group_size(group: Any) -> int:
    if isinstance(group, str):
        return _resolve_process_group(GroupName(group)).size()
    return torch.distributed.ProcessGroup.unbox(group).size()
