"""The fused implementations of the formula: the kernel interpreted on a CPU, and the choice."""

import functools
import logging
import multiprocessing
import re
import subprocess
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from nag.attention.methods import NagMethod
from nag.formulas import fused_guidance
from nag.formulas.normalized_attention_guidance import normalized_attention_guidance
from nag.params import NagParams
from tests.fakes.interpreted_kernel import serve

triton = pytest.importorskip("triton", reason="Triton is published for Linux only")

STRENGTHS = (torch.tensor(9.0), torch.tensor(2.5), torch.tensor(0.25))
CHILD_WAIT_S = 120.0
CPU = torch.device("cpu")


def outputs(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    positive, negative = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    return positive, negative


class InterpretedKernel:
    """The kernel under Triton's interpreter, which a process has for all kernels or for none."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __call__(
        self, positive: torch.Tensor, negative: torch.Tensor, *strengths: float, norm: str = "l1"
    ) -> torch.Tensor:
        self._connection.send((positive, negative, *strengths, norm))
        assert self._connection.poll(CHILD_WAIT_S)
        result = self._connection.recv()
        assert isinstance(result, torch.Tensor), result
        return result


@pytest.fixture(scope="module")
def kernel() -> Iterator[InterpretedKernel]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        process.start()
    theirs.close()
    yield InterpretedKernel(ours)
    ours.close()
    process.join(CHILD_WAIT_S)
    assert process.exitcode == 0


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("channels", [1, 7, 64, 1536, 5120])
def test_the_kernel_agrees_with_float64(
    kernel: InterpretedKernel, channels: int, norm: Literal["l1", "l2"]
) -> None:
    positive, negative = outputs(2, 3, channels)
    positive[0, 1] = negative[0, 1] = 0
    guided = kernel(positive, negative, 9.0, 2.5, 0.25, norm=norm)
    exact = normalized_attention_guidance(positive.double(), negative.double(), 9, 2.5, 0.25, norm)
    torch.testing.assert_close(guided.double(), exact.double(), rtol=2e-6, atol=2e-6)
    assert torch.equal(guided[0, 1], torch.zeros(channels))


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float16, 2**-10), (torch.bfloat16, 2**-7)])
def test_the_kernel_rounds_only_its_result(
    kernel: InterpretedKernel, dtype: torch.dtype, rounding: float
) -> None:
    """Within one rounding of the dtype. The interpreter cuts off where a GPU rounds."""
    positive, negative = outputs(1, 4, 96, dtype=dtype)
    guided = kernel(positive, negative, 9.0, 2.5, 0.25)
    assert guided.dtype == dtype
    torch.testing.assert_close(
        guided.float(),
        normalized_attention_guidance(positive.float(), negative.float(), 9, 2.5, 0.25),
        rtol=rounding,
        atol=1e-6,
    )


def test_rows_may_lie_anywhere_in_memory(kernel: InterpretedKernel) -> None:
    positive, negative = outputs(2, 6, 64)
    guided = kernel(positive.transpose(1, 2), negative[:1].transpose(1, 2), 9.0, 2.5, 0.25)
    torch.testing.assert_close(
        guided,
        normalized_attention_guidance(
            positive.transpose(1, 2), negative[:1].transpose(1, 2), 9, 2.5, 0.25
        ),
    )
    assert guided.is_contiguous()
    assert kernel(positive[:0], negative[:0], 9.0, 2.5, 0.25).shape == (
        0,
        6,
        64,
    )


def test_nan_reaches_its_whole_row_and_no_other(kernel: InterpretedKernel) -> None:
    positive, negative = outputs(1, 3, 40)
    negative[0, 1, 7] = torch.nan
    guided = kernel(positive, negative, 9.0, 2.5, 0.25)
    assert guided.isnan().all(-1).tolist() == [[False, True, False]]
    plain = normalized_attention_guidance(positive, negative, 9, 2.5, 0.25)
    assert torch.equal(guided.isnan(), plain.isnan())


def test_the_kernel_changes_no_bit_where_guidance_does_nothing(kernel: InterpretedKernel) -> None:
    positive, negative = outputs(1, 4, 96)
    for scale, alpha in ((1.0, 1.0), (9.0, 0.0)):
        guided = kernel(positive, negative, scale, 2.5, alpha)
        assert torch.equal(guided, positive)


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("channels", [1536, 2048, 3072, 5120])
def test_the_kernel_is_built_for_gpus_and_keeps_a_row_in_registers(
    capability: int, channels: int, tmp_path: Path
) -> None:
    """Without a GPU: Triton's compiler and NVIDIA's assembler run for it on any machine."""
    from triton.backends.compiler import GPUTarget  # pyright: ignore[reportMissingImports]
    from triton.compiler import ASTSource  # pyright: ignore[reportMissingImports]

    from nag.formulas.guidance_kernel import _guide_row, num_warps_for

    block = triton.next_power_of_2(channels)
    aligned = ("positive_ptr", "negative_ptr", "result_ptr", "positive_row", "negative_row",
               "num_channels")  # fmt: skip
    constants = {"positive_channel": 1, "negative_channel": 1, "IS_L1": True, "BLOCK": block}
    kinds = {name: _kind(name, constants) for name in _guide_row.arg_names}
    multiples: dict[tuple[int, ...], Any] = {
        (index,): [["tt.divisibility", 16]] for index, name in enumerate(kinds) if name in aligned
    }
    built: Any = triton.compile(
        ASTSource(_guide_row, kinds, constants, multiples),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": num_warps_for(block), "enable_fp_fusion": False},
    )
    assert len(re.findall(r"ld\.global\.v4\.b32", built.asm["ptx"])) == len(
        re.findall(r"ld\.global", built.asm["ptx"])
    )
    assert ".local" not in built.asm["ptx"]
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(built.asm["cubin"])
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    usage = subprocess.run(
        [tools / "cuobjdump", "-res-usage", cubin], check=True, capture_output=True, text=True
    ).stdout
    assert "STACK:0 " in usage
    assert "LOCAL:0 " in usage


def _kind(name: str, constants: dict[str, Any]) -> str:
    if name in constants:
        return "constexpr"
    if name.endswith("_ptr"):
        return "*bf16"
    return "fp32" if name.startswith(("nag_", "smallest")) else "i32"


# the choice of an implementation


def test_the_first_implementation_that_agrees_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    def missing() -> fused_guidance.Guidance:
        raise ModuleNotFoundError("No module named 'triton'")

    def wrong() -> fused_guidance.Guidance:
        return lambda positive, _n, _s, _t, _a, _norm: positive * 1.01

    makers = {"a Triton kernel": missing, "a compiled function": wrong}
    chosen = fused_guidance.first_that_works(makers, CPU, torch.float32)
    assert chosen is normalized_attention_guidance
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "a Triton kernel does not work there: No module named 'triton'" in caplog.text
    right = functools.partial(normalized_attention_guidance)
    assert (
        fused_guidance.first_that_works({**makers, "right": lambda: right}, CPU, torch.float32)
        is right
    )


def test_a_call_that_needs_gradients_and_a_cpu_take_plain_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(device: torch.device, dtype: torch.dtype) -> fused_guidance.Guidance:
        raise AssertionError(f"nothing is chosen for {device}, {dtype}")

    monkeypatch.setattr(fused_guidance, "implementation_on", refuse)
    positive, negative = outputs(1, 3, 40)
    plain = normalized_attention_guidance(positive, negative, *STRENGTHS)
    assert torch.equal(fused_guidance.fused_guidance(positive, negative, *STRENGTHS, "l1"), plain)
    monkeypatch.setattr(fused_guidance, "PLAIN_DEVICES", frozenset[str]())
    guided = fused_guidance.fused_guidance(positive.requires_grad_(), negative, *STRENGTHS, "l1")
    guided.sum().backward()
    assert positive.grad is not None
    with pytest.raises(AssertionError, match="nothing is chosen"):
        fused_guidance.fused_guidance(negative, negative, *STRENGTHS, "l1")


@pytest.fixture
def _cpu_like_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_guidance, "PLAIN_DEVICES", frozenset[str]())
    monkeypatch.setattr(
        fused_guidance, "implementation_on", lambda *_: normalized_attention_guidance
    )


@pytest.mark.usefixtures("_cpu_like_a_gpu")
def test_one_compiled_graph_serves_every_strength() -> None:
    torch._dynamo.reset()
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph

    method = NagMethod()
    compiled = torch.compile(
        lambda one, other: fused_guidance.fused_guidance(
            one, other, method.nag_scale, method.nag_tau, method.nag_alpha, method.nag_norm
        ),
        backend=backend,
        fullgraph=True,
    )
    positive, negative = outputs(1, 3, 40)
    for scale in (3.0, 9.0, 12.0):
        method.set(NagParams(nag_scale=scale, nag_alpha=scale / 20))
        torch.testing.assert_close(
            compiled(positive, negative),
            normalized_attention_guidance(positive, negative, scale, 2.5, scale / 20),
        )
    (graph,) = graphs
    called = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert called == [torch.ops.nagfarm.normalized_attention_guidance.default]
    torch._dynamo.reset()


@pytest.mark.usefixtures("_cpu_like_a_gpu")
def test_the_operator_is_what_torch_expects_of_one() -> None:
    positive, negative = outputs(2, 3, 40)
    torch.library.opcheck(
        fused_guidance.guidance_op,
        (positive.transpose(0, 1), negative.transpose(0, 1), *STRENGTHS, "l1"),
        test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
    )
