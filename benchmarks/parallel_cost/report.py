"""Write docs/measurements/parallel-cost: costs and gains of groups, as text, CSV and a plot.

    python -m benchmarks.parallel_cost docs/measurements/parallel-cost

Decides the words; `tables` has the tables, `plot` the curves, and `cost_check` the counts.
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
from pipelines.cost.advice import LONG_S, advice_footnote, advise
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
# Costs and gains of a group

One clip on several devices ([context-parallelism.md](../explanation/context-parallelism.md)): the
work and the traffic of each rank, the bandwidth from which on a group is faster than one device,
and the speed-up. `python -m benchmarks.parallel_cost docs/measurements/parallel-cost` writes this
page. Operations and bytes are counts; **times are predictions from them: nothing here was run on a
GPU.** `nagfarm plan` prints the same figures for the clips of a manifest.

## When a group loses to single workers

- **For latency**, if it renders a clip slower than one device does. That happens below the
  break-even bandwidth `B / ((F1 - Fn) / S - C t)`: the bytes that a rank sends in a step, over the
  seconds that sharing the work saves. B is these bytes, F1 and Fn the operations of a rank on 1 and
  on n devices, S the speed of a device, C the number of collectives and t the start of each. Text
  and decoding take as long on both sides and cancel.
- **For throughput**, always, if a clip fits on one device. n single workers finish n clips in the
  time T1 of one clip; a group finishes one clip in Tn, which is no less than T1 / n at any
  bandwidth. The group reaches (T1 / Tn) / n of their clips an hour: its speed-up over n.

So use a group when a person waits for a clip, when there are fewer clips than devices, or when the
activations of a clip do not fit on one device. **Weights are not sharded**: every rank holds the
whole transformer, in bfloat16 {weight_bytes(WAN_14B) / 1e9:.0f} GB for Wan 14B and
{weight_bytes(LTX_2B) / 1e9:.1f} GB for LTX; the leader also holds the text encoder and the
autoencoder.

## Assumptions

- A device reaches one speed on all operations of a forward. An H100 reaches
  {H100.flops_per_s / 1e12:.0f} TFLOP/s: this follows from 9.77 s a step of Wan 2.1 I2V 14B at 480p
  in diffusers (a figure of others; two forwards a step, since its default uses classifier-free
  guidance). An A100 reaches {A100.flops_per_s / 1e12:.0f} TFLOP/s, by the ratio of the two peaks.
  Break-even bandwidths are in proportion to the speed: a device that is half as fast breaks even at
  half the bandwidth; one that is twice as fast (better kernels, fp8) needs twice as much.
- An exchange takes its start plus its bytes over the nominal bandwidth. The rank computes nothing
  meanwhile: diffusers waits. Collectives reach about two thirds of the nominal bandwidth, and much
  less if devices share a bus.
- The leader alone does text and decoding. They take as long as {ALONE_FORWARDS} forwards on one
  device: 3 % of a clip of 50 steps with classifier-free guidance (a figure of others).
- Left out: kernel launches, kernels that are less efficient on fewer tokens, waiting for the
  slowest rank, copies before and after each exchange, the broadcast of the text and the
  comparison of the latents once per clip. All of these make a group slower than predicted, most
  of all in short forwards.

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
    """Return the page without its counted part. Without torch."""
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
    advice = "\n".join([*lines, advice_footnote()])
    sizes = "\n".join(_size_text(name, work) for name, work in SIZES.items())
    return f"""\
{INTRODUCTION}{links}
## By model and size

![speed-up against bandwidth](parallel-cost.png)

A step has two forwards: classifier-free guidance, and NAG in one of them. PFLOP and GB count one
rank in one step. The other columns are the break-even bandwidth and the speed-up of H100s on each
interconnect; `at best` is an interconnect that takes no time. NAG adds operations and not one byte.
Ring sends keys and values to every rank, so from 3 ranks on it sends more than ulysses; but the
number of heads does not matter to it.

{sizes}
## The advice of `nagfarm plan`

The first line is about a group that clips ask for, the second about clips that ask for none and
take {LONG_S / 60:.0f} minutes or more on one device:

```text
{advice}
```

## Few steps

The fewer the steps, the larger the leader's share of a clip. With {FEW_STEPS} steps, NAG and no
classifier-free guidance, the speed-up of a group is at best:

{few_steps_table()}
## Beside public figures

{public_table()}
The agreement of the first two does not test the exchanges, which are a few per cent of these clips:
nearly all of the predicted loss is the work of the leader alone. No public figure comes with the
size, the steps or the part of the clip that was measured.

Others report that a group can be slower than one device over PCIe, and do not describe the setup.
The model predicts this for two devices below {ltx} GB/s for LTX and below {wan} GB/s for Wan 14B at
480p: not at the nominal bandwidth of PCIe, but where devices share a bus or all traffic passes
through the memory of the host.
"""


def _size_text(name: str, work: Work) -> str:
    single_s = predict(work, ONE_DEVICE, H100, NVLINK_H100).total_s
    geometry = work.geometry
    return (
        f"### {name}\n\n{work.shape}, {geometry.num_tokens(work.shape):,} tokens, "
        f"{geometry.num_heads} heads; {work.num_inference_steps} steps take {single_s:,.0f} s on "
        f"one H100.\n\n{size_table(work)}"
    )


def _break_even(name: str) -> str:
    found = break_even_bytes_per_s(SIZES[name], ParallelConfig(ulysses=2), H100)
    assert found is not None
    return f"{found / 1e9:.1f}"


def check_text() -> str:
    """Return the counts of the model and of the real classes. Needs torch, about 10 s."""
    lines = [
        (name, str(cut), "on" if num_guided else "off", *_check_cells(SIZES[name], cut, num_guided))
        for name in CHECKED_SIZES
        for cut in CHECKED_CUTS
        for num_guided in (0, 1)
    ]
    head = ("size", "cut", "NAG", "operations", "counted", "left out", "bytes sent", "counted")
    return f"""
## Checked against counts

One forward of the real diffusers class at full size, as one rank of a group runs it, on torch's
meta device: operations counted by torch's `FlopCounterMode`, bytes at each collective. In the
layers both agree exactly with the model; work done once per forward is left out.
`tests/pipelines/cost/test_cost.py` holds the model to this.

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
