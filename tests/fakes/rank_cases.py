"""The cases of the tests of `RankPart`: functions of a rendezvous, each run in a rank's process.

Three ranks stand in a row: in `denoise`, rank 0 waits for rank 1 alone, and rank 1 for rank 2,
which fails if the prompt asks for it.
"""

import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from nag.params import NagParams
from pipelines.clip_inputs import ClipInputs
from pipelines.context_parallel.exchange import broadcast_embeddings
from pipelines.context_parallel.process_group import ProcessGroup, Rendezvous
from pipelines.context_parallel.rank_errors import is_connection_error
from pipelines.context_parallel.rank_part import RankPart
from pipelines.errors import GroupBrokenError, RanksDisagreeError
from pipelines.request import GenerationRequest, SamplingParams, TextEmbeddings, VideoShape
from pipelines.video_model import OnStep
from tests.fakes.ranks import FakeRankModel

CPU = torch.device("cpu")
KEPT: list[Exception] = []  # errors with their frames, as a future or a log keeps them


class RowModel(FakeRankModel):
    """A model in which each rank but the last waits for the next one."""

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> torch.Tensor:
        rank, passed = dist.get_rank(), embeddings.prompt_embeds.clone()
        if rank < 2:
            dist.recv(passed, src=rank + 1)
        elif request.prompt == "fails":
            raise ValueError("rank 2 did not like it")
        if rank > 0:
            dist.send(passed, dst=rank - 1)
        return passed + rank if request.prompt == "differs" else passed


def request(prompt: str) -> GenerationRequest:
    return GenerationRequest(
        prompt, "", VideoShape(5, 32, 32), 8.0, SamplingParams(2, 1.0, None, 1), NagParams()
    )


def embeddings() -> TextEmbeddings:
    """Return embeddings with a tensor of each dtype that text has, and two fields that are None.

    An image, a video and two reference images go with them.
    """
    noise = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(5))
    mask = torch.tensor([[True, True, False]])
    pixels = torch.arange(24, dtype=torch.uint8)
    inputs = ClipInputs(
        image=pixels.view(2, 4, 3),
        video=pixels.view(2, 2, 2, 3),
        reference_images=(pixels.view(4, 2, 3), pixels.view(8, 1, 3)),
    )
    return TextEmbeddings(
        noise.to(torch.bfloat16),
        mask,
        noise,
        mask.to(torch.int64),
        noise.to(torch.float16),
        inputs=inputs,
    )


def denoise(rendezvous: Rendezvous, prompt: str) -> tuple[str, str, float]:
    """Return the end of a denoise, the class of the rank's own failure, and the seconds it took."""
    failures: list[Exception] = []
    part = RankPart(RowModel(), failures.append)
    part.join(rendezvous)
    start = time.monotonic()
    try:
        part.denoise(
            request(prompt), embeddings() if rendezvous.rank == 0 else None, lambda _: None
        )
    except (RuntimeError, ValueError, RanksDisagreeError) as error:
        KEPT.append(error)
        end = "connection" if is_connection_error(error) else type(error).__name__
        assert not part.is_joined
    else:
        end = "done"
    took_s = time.monotonic() - start
    try:
        part.denoise(request("well"), None, lambda _: None) if end != "done" else None
    except GroupBrokenError:
        end += ", broken"
    part.leave()
    return end, type(failures[0]).__name__ if failures else "", took_s


def receive(rendezvous: Rendezvous, _prompt: str) -> bool:
    """Return True if the leader's embeddings arrive bit by bit."""
    process_group = ProcessGroup.join(rendezvous, CPU)
    received = broadcast_embeddings(embeddings() if rendezvous.rank == 0 else None, CPU)
    process_group.leave()
    return all(map(is_same, _tensors(received), _tensors(embeddings()))) and len(
        _tensors(received)
    ) == len(_tensors(embeddings()))


def _tensors(of: TextEmbeddings) -> list[torch.Tensor | None]:
    texts = [value for name, value in vars(of).items() if name != "inputs"]
    inputs = of.inputs
    named = (inputs.image, inputs.last_image, inputs.video, inputs.mask)
    return [*texts, *named, *inputs.reference_images]


def join_and_leave(rendezvous: Rendezvous, _prompt: str) -> int:
    """Join and leave a process group, and return the number of files that stay open."""
    ProcessGroup.join(rendezvous, CPU).leave()
    return len(list(Path("/proc/self/fd").iterdir()))


def is_same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and torch.equal(one, other)


CASES: dict[str, Callable[[Rendezvous, str], Any]] = {
    "denoise": denoise,
    "receive": receive,
    "join_and_leave": join_and_leave,
}


def serve(connection: Connection) -> None:
    """Run one case after the other until the connection closes."""
    torch.set_num_threads(1)
    while True:
        try:
            name, rendezvous, prompt = connection.recv()
        except EOFError:
            return
        try:
            connection.send((True, CASES[name](rendezvous, prompt)))
        # Whatever the case raises must reach the test, which fails with this traceback.
        except Exception:  # noqa: BLE001
            connection.send((False, traceback.format_exc()))
