"""Writes docs/measurements/parallel-cost: what groups of the published models cost and gain, as text, CSV and a plot.

    python -m benchmarks.parallel_cost docs/measurements/parallel-cost

Decides the words; the tables are `parallel_tables`'s, the curves `plots`'s, and what was counted `cost_check`'s.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.parallel_cost.plot import draw_speed_ups
from benchmarks.parallel_cost.tables import (
    FEW_STEPS,
    csv_text,
    few_steps_table,
    public_table,
    size_table,
)
from jobs.bench.reporting.plots import require_matplotlib
from jobs.bench.reporting.tables import markdown_table
from pipelines.cost.advice import ADVICE_FOOTNOTE, LONG_S, advise
from pipelines.cost.operations import Forward, exchanges, operations, weight_bytes
from pipelines.cost.prediction import (
    A100,
    ALONE_FORWARDS,
    ETHERNET_100,
    H100,
    NVLINK_A100,
    NVLINK_H100,
    NVLINK_H800,
    PCIE_4,
    PCIE_5,
    Work,
    break_even_bytes_per_s,
    predict,
)
from pipelines.cost.published import LTX_2B, SIZES, WAN_14B
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig

CHECKED_SIZES = ("Wan 2.1 14B, 720p", "Wan 2.1 1.3B, 480p", "LTX 0.9.5, its own size")
CHECKED_CUTS = (ONE_DEVICE, ParallelConfig(ulysses=4), ParallelConfig(2, 2))

INTRODUCTION = f"""\
# What a group costs

One clip on several devices ([context-parallelism.md](../explanation/context-parallelism.md)): what each rank computes and sends, from which bandwidth on
that is faster than one device, and by how much. `python -m benchmarks.parallel_cost docs/measurements/parallel-cost` writes this
page. Operations and bytes are counts; **times are predictions from them: nothing here was run on a GPU.** `nagfarm
plan` says the same of a manifest's clips.

## When a group loses to single workers

- **For latency**, where it renders a clip slower than one device does. That is below the break-even bandwidth
  `B / ((F1 - Fn) / S - C t)`: the bytes B that a rank sends in a step, over the seconds that sharing saves, with the
  operations F1 and Fn of a rank on 1 and on n devices, the speed S of a device, and C collectives of which each takes t
  to start. Text and decoding take as long on either side and fall out.
- **For throughput**, always, where a clip fits on one device. n single workers finish n clips in the time T1 that one
  takes for one; a group finishes one in Tn, which is no less than T1 / n at any bandwidth. It keeps (T1 / Tn) / n of
  their clips an hour: its speed-up over n.

So a group is for a clip that somebody waits for, for fewer clips than devices, and for clips whose activations do not
fit on one device. **Weights are not cut**: every rank holds the whole transformer, in bfloat16
{weight_bytes(WAN_14B) / 1e9:.0f} GB for Wan 14B and {weight_bytes(LTX_2B) / 1e9:.1f} GB for LTX; the leader holds
the text encoder and the autoencoder too.

## What is assumed

- A device reaches one speed on all operations of a forward: an H100 {H100.flops_per_s / 1e12:.0f} TFLOP/s, which is
  what 9.77 s a step of Wan 2.1 I2V 14B at 480p in diffusers comes to (a figure of others; two forwards a step, as its
  default has classifier-free guidance); an A100 {A100.flops_per_s / 1e12:.0f} TFLOP/s, by the two peaks. Break-even
  bandwidths are in proportion to it: a device that is half as fast breaks even at half the bandwidth, one that is twice
  as fast (better kernels, fp8) needs twice as much.
- An exchange takes its bytes over the nominal bandwidth, and its start. Nothing is computed meanwhile: diffusers waits.
  Collectives reach less than the nominal bandwidth, two thirds of it or so, and much less where devices share a bus.
- Text and decoding, the leader's alone, take as long as {ALONE_FORWARDS} forwards on one device. That is 3 % of a clip
  of 50 steps with classifier-free guidance (a figure of others).
- Left out: kernels' launches, kernels that are less efficient on fewer tokens, waiting for the slowest rank, copies
  before and after each exchange, the text that is handed on and the latents that are compared once for a clip. All of
  these make a group slower than predicted, most of all where a forward is short.

| interconnect | GB/s out of each rank | start of a collective |
| --- | --- | --- |
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Write what groups cost, as PREFIX.md, PREFIX.csv and PREFIX.png."
    )
    parser.add_argument("prefix", type=Path, metavar="PREFIX")
    prefix: Path = parser.parse_args(arguments).prefix
    require_matplotlib()
    prefix.with_suffix(".md").write_text(report_text() + check_text())
    prefix.with_suffix(".csv").write_text(csv_text())
    draw_speed_ups(SIZES, prefix.with_suffix(".png"))


def report_text() -> str:
    """All of the page but what was counted. Without torch."""
    links = "".join(
        f"| {link.name} | {link.bytes_per_s / 1e9:g} | {link.start_s * 1e6:.0f} us |\n"
        for link in (NVLINK_H100, NVLINK_A100, NVLINK_H800, PCIE_5, PCIE_4, ETHERNET_100)
    )
    ltx, wan = _break_even("LTX 0.9.5, its own size"), _break_even("Wan 2.1 14B, 480p")
    example = SIZES["Wan 2.1 14B, 720p"]
    name = f"wan2.1-t2v-14b {example.shape}, {example.num_inference_steps} steps"
    lines = [
        line
        for cut in (ParallelConfig(ulysses=4), ONE_DEVICE)
        for line in advise(name, example, cut)
    ]
    advice = "\n".join([*lines, ADVICE_FOOTNOTE])
    sizes = "\n".join(_size_text(name, work) for name, work in SIZES.items())
    return f"""\
{INTRODUCTION}{links}
## By model and size

![speed-up against bandwidth](parallel-cost.png)

A step has two forwards: classifier-free guidance, and NAG in one of them. PFLOP and GB are of one rank in one step;
then come the break-even bandwidth and the speed-up of H100s on each interconnect, `at best` on one that takes no time.
NAG adds operations and not one byte. Ring sends keys and values to every rank, so from 3 ranks on more than ulysses
does, but asks nothing of the heads.

{sizes}
## What `nagfarm plan` says

Of a group that clips ask for, and of clips that ask for none and take {LONG_S / 60:.0f} minutes or more on one device:

```
{advice}
```

## Few steps

The fewer steps, the larger the leader's share of a clip. With {FEW_STEPS} steps, NAG and no classifier-free guidance,
a group is at best so many times as fast as one device:

{few_steps_table()}
## Beside public figures

{public_table()}
That the first two agree says little of the exchanges, which are a few per cent of these clips: nearly all that the
model has a group lose is what the leader does alone. None of the figures says which size, steps or share of the clip it
is of.

That a group can be slower than one device over PCIe (a figure of others, without its setup) is predicted of two
devices below {ltx} GB/s for LTX and below {wan} GB/s for Wan 14B at 480p: not at PCIe's nominal bandwidth, but where
devices share a bus or all goes through the host's memory.
"""


def _size_text(name: str, work: Work) -> str:
    single_s = predict(work, ONE_DEVICE, H100, NVLINK_H100).total_s
    geometry = work.geometry
    return (
        f"### {name}\n\n{work.shape}, {geometry.num_tokens(work.shape):,} tokens, {geometry.num_heads} heads; "
        f"{work.num_inference_steps} steps take {single_s:,.0f} s on one H100.\n\n{size_table(work)}"
    )


def _break_even(name: str) -> str:
    found = break_even_bytes_per_s(SIZES[name], ParallelConfig(ulysses=2), H100)
    assert found is not None
    return f"{found / 1e9:.1f}"


def check_text() -> str:
    """The counts of the model beside those of the real classes. Needs torch, and takes some ten seconds."""
    lines = [
        (name, str(cut), "on" if num_guided else "off", *_check_cells(SIZES[name], cut, num_guided))
        for name in CHECKED_SIZES
        for cut in CHECKED_CUTS
        for num_guided in (0, 1)
    ]
    head = ("size", "cut", "NAG", "operations", "counted", "left out", "bytes sent", "counted")
    return f"""
## Checked against counts

One forward of the real diffusers class at full size, as one rank of a group runs it, on torch's meta device: operations
counted by torch's `FlopCounterMode`, bytes at each collective. In the layers both are the model's to the last one; left
out is what is done once for a forward. `tests/pipelines/cost/test_cost.py` holds the model to this.

{markdown_table(head, lines)}"""


def _check_cells(work: Work, cut: ParallelConfig, num_guided: int) -> tuple[str, ...]:
    from benchmarks.parallel_cost.cost_check import count_forward

    forward = Forward(work.geometry, work.shape, num_guided_rows=num_guided)
    counted, computed = count_forward(forward, cut), operations(forward, cut).total
    sent = sum(exchange.sent_bytes for exchange in exchanges(forward, cut))
    return (
        f"{computed:,}",
        f"{counted.operations:,}",
        f"{counted.operations / computed - 1:.3%}",
        f"{sent:,}",
        f"{sum(counted.sent_bytes.values()):,}",
    )


if __name__ == "__main__":
    main()
