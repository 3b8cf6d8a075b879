"""A rank's process_group in its group: where ranks meet, the process group that they form there, and how each leaves.

Decides the backends and that a group can be formed again by the same processes: each generation has names of its own
in a store that lives outside of all ranks, so that it outlives any of them.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Self

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _abort_process_group

from pipelines.context_parallel.addresses import listen_towards
from pipelines.parallel_config import ParallelConfig

STORE_TIMEOUT_S = 60.0  # to connect to the rendezvous point, and for each of its answers


@dataclass(frozen=True)
class Rendezvous:
    """All that a rank has to know in order to join.

    Args:
        host, port: of the rendezvous point.
        generation: how often these ranks have met before.
        timeout_s: after which a collective raises by itself; who is stopped is found, and killed, long before.
    """

    host: str
    port: int
    generation: int
    rank: int
    parallel: ParallelConfig
    timeout_s: float


class RendezvousPoint:
    """Where the ranks of one group find each other. It lives as long as its process.

    Args:
        host: this machine's address, as the ranks can reach it.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._store = dist.TCPStore(
            host,
            0,
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=STORE_TIMEOUT_S),
        )

    def rendezvous(
        self, generation: int, rank: int, parallel: ParallelConfig, timeout_s: float
    ) -> Rendezvous:
        """What a rank is to be told; of each generation every rank once."""
        return Rendezvous(self._host, self._store.port, generation, rank, parallel, timeout_s)


class ProcessGroup:
    """A rank of the default process group, which is this process. There is at most one."""

    @classmethod
    def join(cls, rendezvous: Rendezvous, device: torch.device) -> Self:
        """Waits for the other ranks, and forms the group with them.

        Raises:
            torch.distributed.DistError: the rendezvous point, or another rank, was not there in time.
        """
        if rendezvous.parallel.across_hosts:
            listen_towards(rendezvous.host, rendezvous.port)
        store = dist.TCPStore(
            rendezvous.host,
            rendezvous.port,
            is_master=False,
            timeout=timedelta(seconds=STORE_TIMEOUT_S),
        )
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "cpu:gloo",
            store=dist.PrefixStore(f"generation-{rendezvous.generation}", store),
            rank=rendezvous.rank,
            world_size=rendezvous.parallel.degree,
            timeout=timedelta(seconds=rendezvous.timeout_s),
        )
        return cls(device)

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def leave(self) -> None:
        """Destroys the process group, whatever state it is in, which frees the ranks that wait for this one.

        To be called in the thread that computes: it frees no collective that another thread waits in.
        """
        if not dist.is_initialized():
            return
        if self._device.type == "cuda":
            _abort_process_group()  # to destroy NCCL's would wait for what is under way
        else:
            dist.destroy_process_group()
