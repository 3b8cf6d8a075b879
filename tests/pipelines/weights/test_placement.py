"""Weights in the host's memory: where they are when, and equal clips."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.hooks.group_offloading import ModuleGroup

from nag.params import NagParams
from pipelines.catalog.keys.lora_config import LoraConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.catalog.model_loras import LoraWeights
from pipelines.errors import ModelConfigError
from pipelines.families.chosen_loras import ChosenLoras
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.ltx2 import LTX2Model
from pipelines.lora_choice import LoraChoice
from pipelines.request import GenerationRequest, SamplingParams, VideoShape
from pipelines.weights import swapping
from pipelines.weights.placement import Placement, check_offload
from tests.builders import tiny, tiny_ltx2
from tests.builders.accelerated import METHODS, denoise, tiny_model
from tests.builders.loras import save_matrices_and_bias
from tests.pipelines.families.test_ltx2 import config_of

REQUEST = GenerationRequest(
    "a", "b", VideoShape(9, 32, 32), 8.0, SamplingParams(2, 1.0, None, 0), NagParams()
)


def test_an_offloaded_encoder_gives_the_same_clip_and_moves_once_for_each_clip() -> None:
    plain = tiny_model("wan2.1")
    config = replace(plain.config, device="auto", offload="text_encoder")
    model = type(plain)(config, tiny.wan_pipeline(), torch.device("cpu"))
    moves: list[str] = []
    encoder: Any = model._placement._encoder
    assert encoder is not None
    assert model.pipeline.text_encoder is None
    forward, move = encoder.forward, encoder.to

    def seen(*args: Any, **kwargs: Any) -> Any:
        moves.append("encode")
        return forward(*args, **kwargs)

    def moved(device: Any) -> Any:
        moves.append(f"to {device}")
        return move(device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "forward", seen)
        patch.setattr(encoder, "to", moved)
        patch.setattr(model._placement, "_device", torch.device("cpu", 0))
        found = denoise(model, REQUEST)
        assert moves == ["to cpu:0", "encode", "encode", "to cpu"]  # prompt and negative prompt
        assert torch.equal(denoise(model, REQUEST), found)
    assert len(moves) == 4
    assert model.pipeline.text_encoder is None
    assert torch.equal(found, denoise(plain, REQUEST))
    assert model.nag_coverage == plain.nag_coverage


def test_the_texts_of_ltx2_are_equal_too() -> None:
    config = config_of("2.0", Path("weights"), device="auto")
    plain = LTX2Model(config, tiny_ltx2.pipeline(), torch.device("cpu"))
    offload = replace(config, offload="text_encoder")
    model = LTX2Model(offload, tiny_ltx2.pipeline(), torch.device("cpu"))
    assert model.pipeline.text_encoder is None
    found, expected = model.encode_text(REQUEST), plain.encode_text(REQUEST)
    assert torch.equal(found.prompt_embeds, expected.prompt_embeds)
    assert model.pipeline.text_encoder is None
    assert plain.pipeline.text_encoder is not None


def _fail_with_encoder(placement: Placement) -> None:
    placement.fetch_encoder()
    assert placement._pipeline.text_encoder is not None
    raise ZeroDivisionError


@pytest.mark.parametrize("offload", ["text_encoder", "model"])
def test_an_encoder_that_is_fetched_embeds_the_next_texts_too(
    offload: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plain = wan(offload), tiny_model("wan2.2")
    placement: Any = model._placement
    sampling = replace(GUIDED.sampling, guidance_scale=1.0)
    first = replace(GUIDED, method="nag", sampling=sampling)
    second, third, fourth = (replace(first, prompt=prompt) for prompt in ("b", "c", "d"))
    encoded, encode = list[str](), model._encode
    monkeypatch.setattr(model, "_encode", lambda text: encoded.append(text) or encode(text))

    def check(request: GenerationRequest, ahead: Any, expected: list[str]) -> None:
        encoded.clear()
        placement.clear()  # as the transformer's turn does
        found = model.encode_text(request, ahead)
        assert encoded == expected
        assert torch.equal(found.prompt_embeds, plain.encode_text(request).prompt_embeds)

    check(first, [second, third], ["a circle", "red", "b", "c"])
    check(second, [fourth], [])  # nothing was fetched, so no text of the fourth
    check(third, [], [])
    check(fourth, [], ["d"])
    model.close()


def test_without_an_offload_each_clip_embeds_its_own_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = wan()
    encoded, encode = list[str](), model._encode
    monkeypatch.setattr(model, "_encode", lambda text: encoded.append(text) or encode(text))
    model.encode_text(REQUESTS["none"], [replace(GUIDED, prompt="b")])
    assert encoded == ["a circle"]


def test_a_text_ahead_that_fails_harms_no_other_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    model = wan("text_encoder")
    encode = model._encode

    def fail(text: str) -> Any:
        if text == "b":
            raise RuntimeError
        return encode(text)

    monkeypatch.setattr(model, "_encode", fail)
    failing = replace(GUIDED, prompt="b")
    model.encode_text(GUIDED, [failing])
    assert model.pipeline.text_encoder is None
    with pytest.raises(RuntimeError):
        model.encode_text(failing)


def test_a_failed_encode_frees_the_device_too() -> None:
    pipeline = tiny.wan_pipeline()
    placement = Placement(pipeline, torch.device("cpu"), "text_encoder")
    with pytest.raises(ZeroDivisionError), placement.encoding():
        _fail_with_encoder(placement)
    assert pipeline.text_encoder is None


def test_an_offload_on_a_machine_without_cuda_is_refused() -> None:
    with pytest.raises(ModelConfigError, match="needs a CUDA device, and this machine has none"):
        check_offload(torch.device("cpu"), "text_encoder")


REQUESTS = {
    method: replace(
        METHODS[method], sampling=replace(METHODS[method].sampling, num_inference_steps=3)
    )
    for method in ("none", "cfg+nag")
}
GUIDED = REQUESTS["cfg+nag"]


def wan(offload: Any = "none", lora: Path | None = None) -> DiffusersModel:
    """Return a Wan with two transformers. Copies on the CPU stand for those on a device."""
    plain, pipeline = tiny_model("wan2.2"), tiny.PIPELINES["wan2.2"]()
    pipeline.vae = tiny.wan_vae()  # other tests share it
    config = replace(plain.config, device="auto", offload=offload)
    if lora is None:
        return type(plain)(config, pipeline, torch.device("cpu"))
    config = replace(config, loras=(LoraConfig("style", "./style", by_default=False),))
    weights = ModelWeights(Path("unused"), "r", (LoraWeights(lora, ""),))
    loras = ChosenLoras(pipeline, config, weights)
    return type(plain)(config, pipeline, torch.device("cpu"), loras)


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    return {method: denoise(wan(), request) for method, request in REQUESTS.items()}


@pytest.mark.parametrize("offload", ["model", "group"])
def test_clips_are_equal_bit_for_bit(offload: Any, expected: dict[str, torch.Tensor]) -> None:
    offloaded = wan(offload)
    assert (offloaded.nag_coverage.guided, offloaded.nag_coverage.total) == (4, 4)
    for method, request in [*REQUESTS.items(), *REQUESTS.items()]:
        assert torch.equal(denoise(offloaded, request), expected[method])
    frames, others = (
        model.decode(GUIDED, expected["none"]).result().frames for model in (offloaded, wan())
    )
    assert np.array_equal(frames, others)
    offloaded.close()


def test_one_component_is_there_at_a_time_and_two_transformers_change_at_the_boundary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = wan("model")
    names = {id(module): name for name, module in model.pipeline.components.items()}
    host = {
        name: {parameter.data_ptr() for parameter in module.parameters()}
        for name, module in model.pipeline.components.items()
        if isinstance(module, torch.nn.Module)
    }
    turns: Any = model._placement._turns
    came: list[str] = []

    def copy(values: torch.Tensor, device: torch.device) -> torch.Tensor:
        name = names[id(turns._resident)]
        if came[-1:] != [name]:
            came.append(name)
            for other, pointers in host.items():
                module = model.pipeline.components[other]
                assert {parameter.data_ptr() for parameter in module.parameters()} == pointers
        return values.clone()

    monkeypatch.setattr(swapping, "copy_to", copy)
    latents = denoise(model, GUIDED)
    model.decode(GUIDED, latents)
    denoise(model, GUIDED)
    clip = ["transformer", "transformer_2"]
    assert came == ["text_encoder", *clip, "vae", *clip]
    model.close()


def test_blocks_come_once_for_each_pass_and_hooks_come_off(
    monkeypatch: pytest.MonkeyPatch, expected: dict[str, torch.Tensor]
) -> None:
    model = wan("group")
    pipeline, came = model.pipeline, list[int]()
    onload = ModuleGroup.onload_

    def counted(group: Any) -> None:
        came.append(len(group.modules))
        onload(group)

    monkeypatch.setattr(ModuleGroup, "onload_", counted)
    denoise(model, REQUESTS["none"])
    assert len(came) == 3 * (2 + 1)  # steps; blocks, and all that is outside of blocks
    model._placement.remove()
    came.clear()
    pipeline.text_encoder = model._placement._encoder
    assert torch.equal(denoise(model, GUIDED), expected["cfg+nag"])
    assert not came


@pytest.mark.parametrize("offload", ["model", "group"])
def test_loras_are_switched_after_a_clip_that_failed(offload: Any, tmp_path: Path) -> None:
    """A LoRA's own bias is written into the weights, which the failed clip left on the device."""

    def fail(_step: int) -> None:
        raise ZeroDivisionError

    lora = save_matrices_and_bias(tmp_path)
    plain, model = wan("none", lora), wan(offload, lora)
    styled = replace(GUIDED, loras=(LoraChoice("style", 0.5),))
    assert not torch.equal(denoise(plain, GUIDED), denoise(plain, styled))
    for request in (GUIDED, styled, GUIDED):
        with pytest.raises(ZeroDivisionError):
            denoise(model, request, fail)
        assert torch.equal(denoise(model, request), denoise(plain, request))
    model.close()
