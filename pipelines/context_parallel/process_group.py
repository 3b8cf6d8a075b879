"""The rendezvous of a group's ranks, and the process group that they form there.

This module decides the communication backends (gloo, nccl). The same processes can form a process
group again: each generation has its own names in a store that lives outside of all ranks and so
outlives any of them.
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
    """The facts that a rank needs to join the process group.

    Args:
        host: address of the rendezvous point.
        port: port of the rendezvous point.
        generation: number of the process group; it grows each time these ranks form one.
        rank: this rank's number.
        parallel: the number of ranks, and how they share a clip.
        timeout_s: seconds after which a collective raises by itself. A stopped rank is found and
            killed long before.
    """

    host: str
    port: int
    generation: int
    rank: int
    parallel: ParallelConfig
    timeout_s: float


class RendezvousPoint:
    """The store in which the ranks of one group find each other. It lives as long as its process.

    Args:
        host: this machine's address, as the ranks reach it.
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
        """Return the rendezvous for one rank. Each rank of a generation needs its own."""
        return Rendezvous(self._host, self._store.port, generation, rank, parallel, timeout_s)


class ProcessGroup:
    """The default process group of this process, which is one of its ranks. At most one exists."""

    @classmethod
    def join(cls, rendezvous: Rendezvous, device: torch.device) -> Self:
        """Wait for the other ranks and form the process group with them.

        It returns when all ranks are connected: a rank that leaves at once then takes nothing from
        the ranks that still connect.

        Raises:
            torch.distributed.DistError: the rendezvous point or another rank did not come in time.
            RuntimeError: another rank was lost while the ranks connected.
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
        process_group = cls(device)
        try:
            dist.all_reduce(torch.zeros(1))  # on the CPU, so by gloo
        except BaseException:
            process_group.leave()
            raise
        return process_group

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def leave(self) -> None:
        """Destroy the process group in any state, which frees the ranks that wait for this one.

        Call it in the thread that computes: it does not free a collective in another thread.
        """
        if not dist.is_initialized():
            return
        if self._device.type == "cuda":
            _abort_process_group()  # destroying NCCL's group would wait for running collectives
        else:
            dist.destroy_process_group()
