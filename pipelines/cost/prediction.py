"""How long a clip takes on one device and on a group, by what it computes and sends. Loads without torch.

Decides what is assumed of devices and interconnects, and what follows: the speed-up of a group, and the bandwidth below
which it has none. What is computed and sent is counted in `cost`. A prediction is a bound: it takes every operation to
run as fast as the next, on however few tokens, and every rank to be ready when the others are. Left out is what a group
does once for a clip: it hands on the text and compares the latents.

One clip on a group of n is compared with one worker, for latency, and with n workers, for throughput. Those finish n
clips in the time that one of them takes; the group finishes one in no less than an n-th of it. So a group never beats
as many workers where a clip fits on one, at any bandwidth; it keeps of their clips an hour its speed-up over n.
"""

from dataclasses import dataclass

from pipelines.context_parallel.geometry import ModelGeometry
from pipelines.cost.operations import Forward, exchanges, forwards_of_step, operations
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import GuidanceMethod, VideoShape


@dataclass(frozen=True)
class Device:
    """What a transformer reaches on it.

    Args:
        flops_per_s: of all operations of a forward, in bfloat16 through diffusers: what is reached, not the peak.
    """

    name: str
    flops_per_s: float


@dataclass(frozen=True)
class Interconnect:
    """What joins the ranks.

    Args:
        bytes_per_s: nominal, out of one rank, while all ranks send.
        start_s: of one collective before its first byte moves.
    """

    name: str
    bytes_per_s: float
    start_s: float


# Wan 2.1 I2V 14B at 480p takes 9.77 s a step on one H100 in diffusers [claim of others]; by `operations`, with two
# forwards a step (its default has classifier-free guidance) and 257 image tokens, that is 3.37e15 operations
H100 = Device("H100", 345e12)
A100 = Device("A100", H100.flops_per_s * 312 / 989)  # by the two peaks, dense bfloat16
H800 = Device("H800", H100.flops_per_s)  # an H100 with a slower NVLink

START_S = 20e-6  # of a collective among GPUs of one machine: its kernel's launch and the ranks' rendezvous
NVLINK_H100 = Interconnect("NVLink, H100", 450e9, START_S)
NVLINK_A100 = Interconnect("NVLink, A100", 300e9, START_S)
NVLINK_H800 = Interconnect("NVLink, H800", 200e9, START_S)
PCIE_5 = Interconnect("PCIe 5 x16", 63e9, START_S)
PCIE_4 = Interconnect("PCIe 4 x16", 31.5e9, START_S)
ETHERNET_100 = Interconnect("100 Gb/s Ethernet a rank", 12.5e9, 50e-6)
INTERCONNECTS = (NVLINK_H100, PCIE_5, PCIE_4, ETHERNET_100)

# Text and decoding are the leader's alone. They take 3 % of a clip of many steps [claim of others]; with the 100
# forwards of 50 steps under classifier-free guidance, as long as three forwards of one device.
ALONE_FORWARDS = 3


@dataclass(frozen=True)
class Work:
    """One clip, as far as its time goes."""

    geometry: ModelGeometry
    shape: VideoShape
    num_inference_steps: int
    method: GuidanceMethod

    @property
    def forwards(self) -> tuple[Forward, ...]:
        """Of one step."""
        return forwards_of_step(self.geometry, self.shape, self.method)


@dataclass(frozen=True)
class ClipTime:
    """The parts of one clip's time. They add up: diffusers waits for each exchange before it computes on."""

    alone_s: float
    compute_s: float
    start_s: float
    send_s: float

    @property
    def denoise_s(self) -> float:
        """What the ranks do together."""
        return self.compute_s + self.start_s + self.send_s

    @property
    def total_s(self) -> float:
        return self.alone_s + self.denoise_s


def step_operations(work: Work, parallel: ParallelConfig = ONE_DEVICE) -> int:
    """Of one rank in one denoising step."""
    return sum(operations(forward, parallel).total for forward in work.forwards)


def step_sent_bytes(work: Work, parallel: ParallelConfig) -> int:
    """Out of one rank in one denoising step."""
    return sum(
        exchange.sent_bytes
        for forward in work.forwards
        for exchange in exchanges(forward, parallel)
    )


def predict(
    work: Work, parallel: ParallelConfig, device: Device, interconnect: Interconnect
) -> ClipTime:
    """One clip on one group; on `ONE_DEVICE` the interconnect does not matter."""
    steps = work.num_inference_steps
    num_calls = sum(
        exchange.num_calls for forward in work.forwards for exchange in exchanges(forward, parallel)
    )
    one_forward = operations(Forward(work.geometry, work.shape)).total
    return ClipTime(
        alone_s=ALONE_FORWARDS * one_forward / device.flops_per_s,
        compute_s=steps * step_operations(work, parallel) / device.flops_per_s,
        start_s=steps * num_calls * interconnect.start_s,
        send_s=steps * step_sent_bytes(work, parallel) / interconnect.bytes_per_s,
    )


def speed_up(
    work: Work, parallel: ParallelConfig, device: Device, interconnect: Interconnect
) -> float:
    """How many times sooner a group has finished a clip than one device; below 1 it is later."""
    single = predict(work, ONE_DEVICE, device, interconnect)
    return single.total_s / predict(work, parallel, device, interconnect).total_s


def best_speed_up(work: Work, parallel: ParallelConfig, device: Device) -> float:
    """That of an interconnect that takes no time: what is left is text, decoding, and what all ranks compute."""
    return speed_up(work, parallel, device, Interconnect("instant", float("inf"), 0.0))


def break_even_bytes_per_s(work: Work, parallel: ParallelConfig, device: Device) -> float | None:
    """The bandwidth at which a group renders a clip exactly as fast as one device. Below it, it is slower.

    Bytes that a rank sends, over the seconds that sharing the computation saves: B / ((F_1 - F_n) / S - C t), with the
    operations F of one rank on 1 and n devices, the speed S of a device, C collectives and the start t of each. Text
    and decoding are the same on both sides and fall out.

    Returns:
        Bytes a second out of each rank; None where the starts alone cost more than is saved, so no bandwidth is enough.
    """
    link = Interconnect("instant but for the starts", float("inf"), START_S)
    saved_s = (
        predict(work, ONE_DEVICE, device, link).denoise_s
        - predict(work, parallel, device, link).denoise_s
    )
    return (
        work.num_inference_steps * step_sent_bytes(work, parallel) / saved_s
        if saved_s > 0
        else None
    )
