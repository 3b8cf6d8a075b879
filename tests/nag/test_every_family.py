"""Each guided class of models stands offloading, saving, changed weights and copies."""

import pickle
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from copy import copy, deepcopy
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from accelerate.hooks import remove_hook_from_module
from diffusers import DiffusionPipeline
from peft import LoraConfig, inject_adapter_in_model

from nag import ForeignCallError, GuidedCopyError, install
from nag.adapters.registry import MODULES
from nag.installation.coverage import find_models
from tests.nag.every_family import (
    CASES,
    OF_BUILDERS,
    Case,
    classes_of_cases,
    every_family,
    model_of,
    text_layers,
)
from tests.nag.joint_families import assert_agrees

pytestmark = OF_BUILDERS
CPU = torch.device("cpu")
# Its pipeline takes three videos; its processors are those of ChronoEdit, and the hook is Wan's.
WITHOUT_A_ROW = {"WanAnimateTransformer3DModel"}
# Its own code reads a weight outside the layer that brings it in: it fails without guidance too.
WITHOUT_OFFLOADING = {"HunyuanDiT2DModel"}


def test_every_guided_class_has_a_row() -> None:
    found = {model.__name__ for _, model in classes_of_cases()}
    assert found == set(MODULES) - WITHOUT_A_ROW


@contextmanager
def offloaded(pipeline: Any, offload: Callable[[Any], Any]) -> Generator[None]:
    """Offload all parts, as diffusers' methods do where there is an accelerator."""
    parts = [one for one in pipeline.components.values() if isinstance(one, torch.nn.Module)]
    for part in parts:
        offload(part)
    try:
        yield
    finally:
        for part in parts:  # some serve other tests too
            remove_hook_from_module(part, recurse=True)


@every_family
def test_offloaded_layers_are_guided_as_others(case: Case) -> None:
    """On a CPU they go to and fro between it and `meta`, by the hooks that a GPU needs too."""
    pipeline = case.build()
    if type(model_of(pipeline)).__name__ in WITHOUT_OFFLOADING:
        return
    plain = case.quick(pipeline)
    with install(pipeline) as nag, nag.guide(case.negative, **case.strengths):
        guided = case.quick(pipeline)
        with offloaded(pipeline, by_layer):
            assert torch.equal(case.quick(pipeline), guided)
            parameters = model_of(pipeline).parameters()
            assert {one.device.type for one in parameters} == {"meta"}
        for _ in range(2):  # a clip ends with all hooks made anew
            with offloaded(pipeline, by_part):
                assert torch.equal(case.quick(pipeline), guided)
    with offloaded(pipeline, by_layer):
        with install(pipeline) as nag:
            assert torch.equal(case.quick(pipeline), plain)
            with nag.guide(case.negative, **case.strengths):
                assert torch.equal(case.quick(pipeline), guided)
        assert torch.equal(case.quick(pipeline), plain)


def by_layer(part: Any) -> None:
    cpu_offload(part, CPU)


def by_part(part: Any) -> None:
    cpu_offload_with_hook(part, CPU)


@every_family
def test_a_guided_model_is_saved_as_the_stock_one(case: Case, tmp_path: Path) -> None:
    pipeline = case.build()
    model = model_of(pipeline)
    model.save_pretrained(tmp_path / "stock")
    with install(pipeline) as nag, nag.guide(case.negative, **case.strengths):
        model.save_pretrained(tmp_path / "guided")
        guided = case.quick(pipeline)
    assert files(tmp_path / "guided") == files(tmp_path / "stock")
    if getattr(model, "encoder_hid_proj", None) is not None:  # image prompts are loaded apart
        return
    plain = case.quick(pipeline)
    reloaded = type(model).from_pretrained(tmp_path / "guided")
    pipeline.register_modules(**{find_models(pipeline)[0].component: reloaded})
    # Weights from a file lie elsewhere in memory, which decides how products are summed up.
    assert_agrees(case.quick(pipeline), plain)
    with install(pipeline) as nag, nag.guide(case.negative, **case.strengths):
        assert_agrees(case.quick(pipeline), guided)


def files(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir()}


@pytest.mark.parametrize("name", ["Wan", "LTX"])
def test_a_guided_pipeline_is_saved_as_the_stock_one(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    pipeline = case.build()
    with install(pipeline) as nag, nag.guide(case.negative, **case.strengths):
        pipeline.save_pretrained(tmp_path)
        guided = case.quick(pipeline)
    reloaded: Any = DiffusionPipeline.from_pretrained(tmp_path)
    reloaded.set_progress_bar_config(disable=True)
    assert type(reloaded) is type(pipeline)
    assert_agrees(case.quick(reloaded), case.quick(pipeline))
    with install(reloaded) as nag, nag.guide(case.negative, **case.strengths):
        assert_agrees(case.quick(reloaded), guided)


@every_family
def test_weights_that_change_while_guided_are_those_of_the_next_clip(case: Case) -> None:
    pipeline = case.build()
    model, layers = model_of(pipeline), text_layers(pipeline)

    with install(pipeline) as nag, nag.guide(case.negative, **case.strengths):
        before = case.quick(pipeline)
        with torch.no_grad():
            for name in layers:
                model.get_submodule(name).weight.mul_(1.5)
        scaled = case.quick(pipeline)
        with nag.guide(case.negative, **case.strengths):  # releases all that was kept
            assert torch.equal(case.quick(pipeline), scaled)
        lora = LoraConfig(r=2, target_modules=layers, init_lora_weights=False)
        inject_adapter_in_model(lora, model)
        with_lora = case.quick(pipeline)
    with install(pipeline) as nag, nag.guide(case.negative, **case.strengths):
        assert torch.equal(case.quick(pipeline), with_lora)
    assert not torch.equal(scaled, before)
    assert not torch.equal(with_lora, scaled)


@every_family
def test_a_copy_is_a_stock_pipeline_and_a_guided_one_is_not_copied(case: Case) -> None:
    pipeline = case.build()
    plain = case.quick(pipeline)
    component, model = find_models(pipeline)[0].component, model_of(pipeline)
    with install(pipeline) as nag:
        copied = deepcopy(pipeline)
        # Some text encoders of transformers cannot be pickled after their first call.
        pickled = pickle.loads(pickle.dumps(model))
        with nag.guide(case.negative, **case.strengths):
            guided = case.quick(pipeline)
            with pytest.raises(GuidedCopyError, match="copy it outside guide"):
                deepcopy(pipeline)
            with pytest.raises(GuidedCopyError, match="copy it outside guide"):
                pickle.dumps(model)
            assert torch.equal(case.quick(pipeline), guided)
    for one in (model_of(copied), pickled):
        copied.register_modules(**{component: one})
        assert torch.equal(case.quick(copied), plain)
        with install(copied) as nag, nag.guide(case.negative, **case.strengths):
            assert torch.equal(case.quick(copied), guided)


def second_pipeline(pipeline: Any, case: Case) -> Any:
    """Return another pipeline of the same model, with a scheduler of its own."""
    other = type(pipeline)(**{**pipeline.components, **case.settings})
    return with_own_scheduler(other)


def shallow_copy(pipeline: Any, _case: Case) -> Any:
    return with_own_scheduler(copy(pipeline))


def with_own_scheduler(pipeline: Any) -> Any:
    pipeline.scheduler = deepcopy(pipeline.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def callback_of(pipeline: Any) -> str | None:
    """Return the argument that takes a callback for each step."""
    found = signature(type(pipeline).__call__).parameters
    return next((one for one in ("callback_on_step_end", "callback") if one in found), None)


def check_calls_of_others(case: Case, make: Callable[[Any, Case], Any]) -> None:
    pipeline = case.build()
    other, model, name = make(pipeline, case), model_of(pipeline), callback_of(pipeline)
    if name is None:  # nothing runs between the steps
        return
    refused = nullcontext() if case.names_calls else pytest.raises(ForeignCallError)
    calls: list[tuple[Any, Any]] = []
    handle = model.register_forward_pre_hook(
        lambda _model, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    with install(pipeline) as nag, nag.guide(case.negative, **case.strengths):
        guided = case.render(pipeline)
        handle.remove()
        count = 0

        def preview(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            with refused:
                case.quick(other)
            with pytest.raises(ForeignCallError), torch.no_grad():
                model(*calls[0][0], **calls[0][1])
            return arguments[-1]

        assert torch.equal(case.render(pipeline, **{name: preview}), guided)
        assert count > 1


@every_family
def test_a_callback_takes_no_guided_call_from_the_loop(case: Case) -> None:
    """Another pipeline's calls are known by name or refused; a call by hand is refused."""
    check_calls_of_others(case, second_pipeline)


@pytest.mark.parametrize("name", ["Stable Diffusion", "SD3", "Lumina 2"])
def test_a_shallow_copy_of_the_pipeline_is_another_one(name: str) -> None:
    check_calls_of_others(CASES[name], shallow_copy)


# They are compiled as a whole, and look at their text's mask, or at the experts of a token.
IN_SEVERAL_GRAPHS = {
    "HiDreamImageTransformer2DModel",
    "HunyuanDiT2DModel",
    "Lumina2Transformer2DModel",
}


def check_compiled(case: Case) -> None:
    pipeline = case.build()
    model = model_of(pipeline)
    repeated = getattr(model, "_repeated_blocks", None) or ()
    has_blocks = any(type(one).__name__ in repeated for one in model.modules())
    # The cheap backend: what cannot be traced fails with it too.
    torch._dynamo.reset()
    try:
        with install(pipeline) as nag, nag.guide(case.negative, **case.strengths):
            eager = case.quick(pipeline)
            compile_ = model.compile_repeated_blocks if has_blocks else model.compile
            compile_(backend="eager", fullgraph=type(model).__name__ not in IN_SEVERAL_GRAPHS)
            assert_agrees(case.quick(pipeline), eager)
    finally:
        torch._dynamo.reset()


# They make the negative prompt's tokens in the first block, which may be compiled.
@pytest.mark.parametrize("name", ["ERNIE-Image", "Z-Image"])
def test_compiled_blocks_guide_by_tokens_that_the_first_one_makes(name: str) -> None:
    check_compiled(CASES[name])


@pytest.mark.slow
@every_family
def test_a_compiled_model_is_guided_alike_in_every_family(case: Case) -> None:
    check_compiled(case)
