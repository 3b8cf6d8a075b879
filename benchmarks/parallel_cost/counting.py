"""Count the exchanges of a group: each collective of this thread, and the bytes that leave a rank.

The bytes are the least traffic that any implementation needs, not the traffic of a certain library.
Seconds are not counted here.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.distributed_c10d import GroupName, _resolve_process_group
from torch.utils._python_dispatch import TorchDispatchMode

_NAMES = {  # functional collectives, and those that are called directly
    "all_to_all_single": "all_to_all",
    "alltoall_": "all_to_all",
    "alltoall_base_": "all_to_all",
    "all_gather_into_tensor": "all_gather",
    "allgather_": "all_gather",
    "_allgather_base_": "all_gather",
    "allreduce_": "all_reduce",
    "broadcast_": "broadcast",
}
_NAMESPACES = ("_c10d_functional", "c10d")
_NO_EXCHANGE = ("wait_tensor", "_wrap_tensor_autograd")


@dataclass(frozen=True)
class Collective:
    """One exchange as one rank sees it.

    Args:
        kind: `all_to_all`, `all_gather`, `all_reduce` or `broadcast`, or torch's own name of
            another collective.
        input_bytes: bytes of the input of this rank.
        group_size: ranks that take part.
    """

    kind: str
    input_bytes: int
    group_size: int

    @property
    def sent_bytes(self) -> int:
        """Bytes that must leave this rank.

        All-to-all: all but its own share. All-reduce: twice that (summands, then sums). Others: its
        input to each other rank.
        """
        to_others = self.input_bytes * (self.group_size - 1)
        match self.kind:
            case "all_to_all":
                return to_others // self.group_size
            case "all_reduce":
                return 2 * to_others // self.group_size
            case _:
                return to_others


class CollectiveCounter(TorchDispatchMode):
    """A context manager that records each collective of this thread in `collectives`.

    It sees torch's functional collectives, which diffusers uses, and direct calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.collectives: list[Collective] = []

    @property
    def num_calls(self) -> dict[str, int]:
        """Calls of each kind."""
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
        namespace, _, name = (
            str(getattr(func, "_schema", func)).split("(")[0].split(".")[0].partition("::")
        )
        if namespace in _NAMESPACES and name not in _NO_EXCHANGE:
            self.collectives.append(_read_call(namespace, name, args))
        return func(*args, **(kwargs or {}))


def _read_call(namespace: str, name: str, args: tuple[Any, ...]) -> Collective:
    """Read input and group of a call.

    Functional collectives take the input first and the group last. Those of c10d take the group
    right after the input, and the output before it, unless input and output are one tensor.
    """
    is_direct = namespace == "c10d"
    place = (
        next(place for place, arg in enumerate(args) if isinstance(arg, torch.ScriptObject))
        if is_direct
        else -1
    )
    num_bytes = sum(
        tensor.numel() * tensor.element_size()
        for tensor in _tensors(args[place - 1 if is_direct else 0])
    )
    return Collective(_NAMES.get(name, name), num_bytes, _group_size(args[place]))


def _tensors(value: Any) -> list[torch.Tensor]:
    """Return the tensors of an argument that is a tensor or a list."""
    return (
        [value]
        if isinstance(value, torch.Tensor)
        else [tensor for entry in value for tensor in _tensors(entry)]
    )


def _group_size(group: Any) -> int:
    if isinstance(group, str):
        return _resolve_process_group(GroupName(group)).size()
    return torch.distributed.ProcessGroup.unbox(group).size()
