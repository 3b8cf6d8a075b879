"""The predicted time of a clip on one device and on a group, from its counts. Loads without torch.

Decides the speeds of cards and interconnects, assumed or measured, and derives the speed-up of a
group and the bandwidth below which it has none. `operations` counts work and traffic. A prediction
is a bound: it assumes that every operation runs equally fast, on however few tokens, and that no
rank waits for a slower one. Left out is the work that a group does once per clip: it broadcasts the
text and compares the latents.

One clip on a group of n is compared with one worker for latency, and with n workers for throughput.
n workers finish n clips in the time of one; the group finishes one clip in no less than an n-th of
it. So, if a clip fits on one device, n workers are at least as fast as a group of n at any
bandwidth: the group finishes as many clips an hour as they do, times its speed-up, over n.
"""

import re
from dataclasses import dataclass

from pipelines.context_parallel.geometry import ModelGeometry
from pipelines.cost.operations import Forward, exchanges, forwards_of_step, operations
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import GuidanceMethod, VideoShape


@dataclass(frozen=True)
class Device:
    """The speed of a transformer on a device.

    Args:
        name: the card's word in the name that torch gives the device, such as "H100".
        flops_per_s: speed over all operations of a forward, in bfloat16 through diffusers; not the
            peak.
        measured_by: the committed JSON that `python -m benchmarks.gpu` wrote on it; None for a
            speed that was assumed.
    """

    name: str
    flops_per_s: float
    measured_by: str | None = None


@dataclass(frozen=True)
class Interconnect:
    """The link between ranks.

    Args:
        bytes_per_s: nominal bandwidth out of one rank while all ranks send.
        start_s: start of one collective, before its first byte moves, in seconds.
    """

    name: str
    bytes_per_s: float
    start_s: float


# Wan 2.1 I2V 14B at 480p takes 9.77 s a step on one H100 in diffusers [claim of others]. By
# `operations`, with two forwards a step (its default uses classifier-free guidance) and 257 image
# tokens, that is 3.37e15 operations.
H100 = Device("H100", 345e12)
A100 = Device("A100", H100.flops_per_s * 312 / 989)  # ratio of the two peaks, dense bfloat16
H800 = Device("H800", H100.flops_per_s)  # an H100 with a slower NVLink
# `python -m benchmarks.gpu.card` prints the row of a card from its measurement; put it in front,
# because the first row of a name counts.
CARDS = (H100, A100, H800)
# for a device that is unknown, or not in the table
DEFAULT_CARD = next(card for card in CARDS if card.name == H100.name)

# Nominal memory, for refusing what cannot fit. A driver reports a little more than 1e9 bytes for
# each nominal GB, which is room for its own context.
MEMORY_GB = {
    "H200": 141, "H100": 80, "H800": 80, "A100": 80, "L40S": 48, "L4": 24, "A10G": 24,
    "4090": 24, "5090": 32,
}  # fmt: skip

START_S = 20e-6  # a collective among GPUs of one machine: launch and synchronisation
NVLINK_H100 = Interconnect("NVLink, H100", 450e9, START_S)
NVLINK_A100 = Interconnect("NVLink, A100", 300e9, START_S)
NVLINK_H800 = Interconnect("NVLink, H800", 200e9, START_S)
PCIE_5 = Interconnect("PCIe 5 x16", 63e9, START_S)
PCIE_4 = Interconnect("PCIe 4 x16", 31.5e9, START_S)
ETHERNET_100 = Interconnect("100 Gb/s Ethernet a rank", 12.5e9, 50e-6)
INTERCONNECTS = (NVLINK_H100, PCIE_5, PCIE_4, ETHERNET_100)

# The leader alone does text and decoding. They take 3 % of a clip of many steps [claim of others]:
# with the 100 forwards of 50 steps under classifier-free guidance, three forwards of one device.
ALONE_FORWARDS = 3


def card_of(device_name: str | None) -> Device:
    """Return the card of a device, by the name that torch gives it; None if it is unknown."""
    for card in CARDS:
        if re.search(rf"\b{re.escape(card.name)}\b", device_name or ""):
            return card
    return DEFAULT_CARD


def memory_of_card(device_name: str) -> int | None:
    """Return the bytes of memory of a card by a name that holds its word; None if unknown.

    A size in the name counts first: an A100 has 40 or 80 GB. Ray writes `A100-40G`.
    """
    if stated := re.search(r"(?<![0-9A-Z])(\d{2,3}) ?GB?\b", device_name, re.IGNORECASE):
        return int(stated[1]) * 10**9
    if re.search(r"(?<![0-9A-Z.])[\d.]+ ?GB?$", device_name, re.IGNORECASE):  # no card has it
        return None
    for word, size_gb in MEMORY_GB.items():
        if re.search(rf"(?<![A-Z0-9]){word}(?![A-Z0-9])", device_name.upper()):
            return size_gb * 10**9
    return None


@dataclass(frozen=True)
class Work:
    """One clip with the settings that decide its time."""

    geometry: ModelGeometry
    shape: VideoShape
    num_inference_steps: int
    method: GuidanceMethod

    @property
    def forwards(self) -> tuple[Forward, ...]:
        """Calls of the transformer in one step."""
        return forwards_of_step(self.geometry, self.shape, self.method)


@dataclass(frozen=True)
class ClipTime:
    """The parts of a clip's time. They add up, since diffusers waits for each exchange."""

    alone_s: float
    compute_s: float
    start_s: float
    send_s: float

    @property
    def denoise_s(self) -> float:
        """Time of the part that the ranks share, in seconds."""
        return self.compute_s + self.start_s + self.send_s

    @property
    def total_s(self) -> float:
        return self.alone_s + self.denoise_s


def step_operations(work: Work, parallel: ParallelConfig = ONE_DEVICE) -> int:
    """Return the operations of one rank in one denoise step."""
    return sum(operations(forward, parallel).total for forward in work.forwards)


def step_sent_bytes(work: Work, parallel: ParallelConfig) -> int:
    """Return the bytes that leave one rank in one denoise step."""
    return sum(
        exchange.sent_bytes
        for forward in work.forwards
        for exchange in exchanges(forward, parallel)
    )


def predict(
    work: Work, parallel: ParallelConfig, device: Device, interconnect: Interconnect
) -> ClipTime:
    """Predict the time of a clip on a group; `ONE_DEVICE` does not use the interconnect."""
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
    """Return the time on one device over the time on the group; below 1 the group is slower."""
    single = predict(work, ONE_DEVICE, device, interconnect)
    return single.total_s / predict(work, parallel, device, interconnect).total_s


def best_speed_up(work: Work, parallel: ParallelConfig, device: Device) -> float:
    """Return the speed-up on an interconnect that takes no time.

    Text, decoding and the work that every rank repeats still bound it.
    """
    return speed_up(work, parallel, device, Interconnect("instant", float("inf"), 0.0))


def break_even_bytes_per_s(work: Work, parallel: ParallelConfig, device: Device) -> float | None:
    """Return the bandwidth at which a group is as fast as one device; below it is slower.

    Bytes sent by a rank, over the seconds that sharing the computation saves: B / ((F_1 - F_n) / S
    - C t), with the operations F of one rank on 1 and n devices, the speed S of a device, C
    collectives and the start t of each. Text and decoding are equal on both sides and cancel.

    Returns:
        Bytes per second out of each rank; None if the starts alone cost more than is saved.
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
