"""Wan and LTX on real diffusers classes at tiny size, loaded from disk like all weights."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import nag
from jobs.clip_id import clip_id
from nag.params import GuidanceParams, NagParams, NasaParams, VsfParams
from pipelines.catalog.keys.scheduler_config import SchedulerConfig
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.catalog.model_folder import inspect_model
from pipelines.catalog.tokenizer import digest_of, load_tokenizer
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.registry import load_model
from pipelines.request import GenerationRequest, SamplingParams, VideoShape
from pipelines.texts import RequestTokens
from pipelines.video_model import VideoModel
from tests.builders import tiny
from tests.builders.operators import counted_operators
from tests.builders.specs import MODEL

REQUEST = GenerationRequest(
    "a circle",
    "red",
    VideoShape(9, 32, 32),
    8.0,
    SamplingParams(num_inference_steps=3, guidance_scale=1.0, flow_shift=None, seed=3),
    NagParams(nag_scale=11),
)
GUIDED = replace(REQUEST, method="cfg+nag", sampling=replace(REQUEST.sampling, guidance_scale=3.0))
# each method, with its text of classifier-free guidance and its parameters
METHODS: dict[str, tuple[GenerationRequest, str, GuidanceParams | None]] = {
    "none": (replace(REQUEST, method="none"), "", None),
    "cfg": (replace(GUIDED, method="cfg"), "red", None),
    "nag": (REQUEST, "", NagParams(nag_scale=11)),
    "nag with L2": (
        replace(REQUEST, nag=NagParams(11, nag_norm="l2")),
        "",
        NagParams(11, nag_norm="l2"),
    ),
    "vsf": (replace(REQUEST, method="vsf", vsf=VsfParams(2.0, 0.1)), "", VsfParams(2.0, 0.1)),
    "nasa": (replace(REQUEST, method="nasa", nasa=NasaParams(0.5)), "", NasaParams(0.5)),
    "cfg+nag": (GUIDED, "", NagParams(nag_scale=11)),
    "cfg+nag without nag": (replace(GUIDED, nag=NagParams(nag_scale=1)), "red", None),
}


@pytest.fixture(scope="module", params=list(tiny.PIPELINES))
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> DiffusersModel:
    folder = tmp_path_factory.mktemp("model") / "weights"
    tiny.PIPELINES[request.param]().save_pretrained(folder)
    return load(request.param, folder)


def load(name: str, folder: Path, scheduler: Any = None) -> DiffusersModel:
    config = ModelConfig(
        name=name,
        family="ltx" if name == "ltx" else "wan",
        source=str(folder),
        grid=ShapeGrid(8, 32, 32),
        sampling=SamplingDefaults(3, 1.0, 9, 32, 32, 8.0),
        dtype="float32",
        device="cpu",
        max_sequence_length=16,
        scheduler=SchedulerConfig(
            scheduler or (None if name == "ltx" else "UniPCMultistepScheduler"), None
        ),
    )
    loaded = load_model(config, inspect_model(config, folder / "mine.yaml"), 1)
    assert isinstance(loaded, DiffusersModel)
    return loaded


def render(model: VideoModel, request: GenerationRequest) -> np.ndarray:
    latents = model.denoise(request, model.encode_text(request), lambda _step: None)
    return model.decode(request, latents).result().frames


def render_by_hand(
    model: DiffusersModel, request: GenerationRequest, cfg_text: str, params: GuidanceParams | None
) -> np.ndarray:
    """Return the clip of a stock pipeline, called as its own users call it, in parts of 255."""
    stock = tiny.PIPELINES[model.config.name]()
    guidance = nag.guide(stock, "red", params, max_sequence_length=16) if params else nullcontext()
    with guidance:
        frames = stock(
            request.prompt,
            cfg_text,
            height=32,
            width=32,
            num_frames=9,
            num_inference_steps=3,
            guidance_scale=request.sampling.guidance_scale,
            max_sequence_length=16,
            generator=torch.Generator().manual_seed(3),
            output_type="np",
            **({"frame_rate": 8.0} if model.config.name == "ltx" else {}),
        ).frames[0]
    return frames * 255


def test_another_scheduler_keeps_the_saved_shift(model: DiffusersModel, tmp_path: Path) -> None:
    """Both names of the shift in saved configs are read."""
    name = model.config.name
    stock = tiny.PIPELINES[name]()
    is_euler = isinstance(stock.scheduler, FlowMatchEulerDiscreteScheduler)
    saved = {"shift": 5.0} if is_euler else {"flow_shift": 5.0}
    stock.scheduler = type(stock.scheduler).from_config(stock.scheduler.config, **saved)
    stock.save_pretrained(tmp_path / "weights")
    other = "UniPCMultistepScheduler" if is_euler else "FlowMatchEulerDiscreteScheduler"
    built = load(name, tmp_path / "weights", other)._schedulers.build(None, 0)
    assert type(built).__name__ == other
    assert (built.config.flow_shift if is_euler else built.shift) == 5


def test_a_request_becomes_8_bit_frames(model: DiffusersModel) -> None:
    frames = render(model, REQUEST)
    assert (frames.shape, frames.dtype) == ((9, 32, 32, 3), np.uint8)


def test_a_clip_is_the_same_alone_after_another_and_in_another_order(
    model: DiffusersModel,
) -> None:
    others = [
        replace(
            REQUEST,
            prompt="a square",
            sampling=replace(REQUEST.sampling, num_inference_steps=2, seed=8),
        ),
        replace(GUIDED, negative_prompt=""),
        replace(REQUEST, nag=NagParams(5.0, 2.0, 0.5, 0.0, 0.4)),
        *(request for request, _, _ in METHODS.values()),
    ]
    alone = render(model, REQUEST)
    in_order = [render(model, other) for other in others]
    assert np.array_equal(render(model, REQUEST), alone)
    reversed_order = [render(model, other) for other in reversed(others)]
    assert all(
        np.array_equal(one, two)
        for one, two in zip(in_order, reversed(reversed_order), strict=True)
    )


def test_a_clip_is_the_same_from_weights_loaded_again(model: DiffusersModel) -> None:
    again = load(model.config.name, Path(model.config.source))
    assert np.array_equal(render(again, REQUEST), render(model, REQUEST))


@pytest.mark.parametrize(
    "text",
    ["a red circle", " two  words \n", "a </s> b <pad>", "caf\u00e9 &amp;lt; “é”", "a b " * 40, ""],
)
def test_a_plan_reads_the_tokens_that_the_text_encoder_gets(
    model: DiffusersModel, text: str
) -> None:
    got: list[torch.Tensor] = []
    with model.pipeline.text_encoder.register_forward_pre_hook(
        lambda _encoder, arguments: got.append(arguments[0][0])
    ):
        model._encode(text)
    tokens = load_tokenizer(Path(model.config.source), model.config).tokens(text)
    num_read = min(tokens.count, model.config.max_sequence_length)
    assert tokens.digest == digest_of(got[0][:num_read].tolist())
    assert not got[0][num_read:].any()  # padding


LONG = "a circle " * 8
PIXEL_EQUAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "none": (
        {"method": "none", "negative_prompt": "blue", "nag": NagParams(5)},
        {"method": "none"},
    ),
    "nag": ({"vsf": VsfParams(2), "prompt": " a  square"}, {"prompt": "a square"}),
    "a range": (
        {"nag": NagParams(11, nag_start=0.1, nag_end=0.6)},
        {"nag": NagParams(11, nag_start=0.3, nag_end=0.66)},
    ),
    "a cut text": (
        {"prompt": f"{LONG} red", "text": "truncate"},
        {"prompt": f"{LONG} blue", "text": "truncate"},
    ),
}


@pytest.mark.parametrize("case", PIXEL_EQUAL)
def test_requests_with_one_id_give_equal_pixels(model: DiffusersModel, case: str) -> None:
    tokenizer = load_tokenizer(Path(model.config.source), model.config)
    one, other = (replace(REQUEST, **change) for change in PIXEL_EQUAL[case])
    ids = {
        clip_id(MODEL, request, RequestTokens.of(request, tokenizer.tokens))
        for request in (one, other, REQUEST)
    }
    assert len(ids) == 2
    assert np.array_equal(render(model, one), render(model, other))
    assert not np.array_equal(render(model, one), render(model, REQUEST))


def test_the_seed_the_prompt_and_the_negative_prompt_each_change_the_clip(
    model: DiffusersModel,
) -> None:
    clips = [
        render(model, request)
        for request in (
            REQUEST,
            replace(REQUEST, prompt="a square"),
            replace(REQUEST, negative_prompt="blue"),
            replace(REQUEST, negative_prompt=""),
            replace(REQUEST, sampling=replace(REQUEST.sampling, seed=4)),
        )
    ]
    assert len({clip.tobytes() for clip in clips}) == len(clips)


def test_without_a_negative_prompt_the_clip_is_the_stock_pipelines(model: DiffusersModel) -> None:
    expected = render_by_hand(model, REQUEST, "", None)
    for method in ("none", "nag", "vsf", "nasa"):
        found = render(model, replace(REQUEST, negative_prompt="", method=method))
        # The model's frames are rounded to bytes.
        assert np.abs(found - expected).max() <= 0.51, method


@pytest.mark.parametrize("method", METHODS)
def test_each_method_gives_the_clip_of_the_stock_pipeline_with_that_method(
    model: DiffusersModel, method: str
) -> None:
    request, cfg_text, params = METHODS[method]
    expected = render_by_hand(model, request, cfg_text, params)
    assert np.abs(render(model, request) - expected).max() <= 0.51


def test_the_methods_make_different_clips(model: DiffusersModel) -> None:
    clips = {name: render(model, request).tobytes() for name, (request, _, _) in METHODS.items()}
    assert clips.pop("cfg+nag without nag") == clips["cfg"]
    assert len(set(clips.values())) == len(clips)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_runs_its_documented_number_of_passes(model: DiffusersModel, method: str) -> None:
    rows: list[int] = []
    transformers = [model.pipeline.transformer, getattr(model.pipeline, "transformer_2", None)]
    handles = [
        transformer.register_forward_hook(
            lambda _module, _arguments, output: rows.append(len(output[0]))
        )
        for transformer in transformers
        if transformer
    ]
    render(model, METHODS[method][0])
    for handle in handles:
        handle.remove()
    assert sum(rows) == 3 * (2 if method.startswith("cfg") else 1)


def test_each_text_is_encoded_once(model: DiffusersModel, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    encode_prompt = model.pipeline.encode_prompt

    def counted(text: str, **arguments: object) -> object:
        encoded.append(text)
        return encode_prompt(text, **arguments)

    monkeypatch.setattr(model.pipeline, "encode_prompt", counted)
    texts = ["one new prompt", "another"]
    for prompt in texts:
        for negative_prompt in ("one negative", "one new prompt"):
            model.encode_text(replace(REQUEST, prompt=prompt, negative_prompt=negative_prompt))
    assert encoded == ["one new prompt", "one negative", "another"]


def test_a_negative_prompt_goes_to_nag_or_else_to_classifier_free_guidance(
    model: DiffusersModel,
) -> None:
    red = model.encode_text(replace(REQUEST, prompt="red")).prompt_embeds
    nag_alone = model.encode_text(REQUEST)
    assert nag_alone.unconditional_embeds is None
    both = model.encode_text(GUIDED)
    cfg_alone = model.encode_text(replace(GUIDED, nag=NagParams(nag_scale=1)))
    assert both.negative_prompt_embeds is not None
    assert both.unconditional_embeds is not None
    assert torch.equal(both.negative_prompt_embeds, red)
    assert not torch.equal(both.unconditional_embeds, red)
    assert cfg_alone.negative_prompt_embeds is None
    assert cfg_alone.unconditional_embeds is not None
    assert torch.equal(cfg_alone.unconditional_embeds, red)


def test_every_step_is_reported(model: DiffusersModel) -> None:
    steps: list[int] = []
    model.denoise(REQUEST, model.encode_text(REQUEST), steps.append)
    assert steps == [0, 1, 2]


def test_all_text_attention_is_guided(model: DiffusersModel) -> None:
    expected = 4 if model.config.name == "wan2.2" else 2
    assert (model.nag_coverage.guided, model.nag_coverage.total) == (expected, expected)


def test_flow_shift_changes_the_clip_of_wan(model: DiffusersModel) -> None:
    if model.config.family == "ltx":
        pytest.skip("LTX shifts by the number of tokens")
    clips = {
        render(
            model, replace(REQUEST, sampling=replace(REQUEST.sampling, flow_shift=shift))
        ).tobytes()
        for shift in (None, 1.0, 8.0)
    }
    assert len(clips) == 3


def test_exact_attention_runs_no_fused_kernel_and_gives_the_same_clip(
    model: DiffusersModel,
) -> None:
    embeddings = model.encode_text(REQUEST)

    def denoise() -> tuple[torch.Tensor, set[str]]:
        with counted_operators() as counts:
            latents = model.denoise(REQUEST, embeddings, lambda _step: None)
        return latents, {name for name in counts if name.startswith("aten::_scaled_dot_product")}

    plain, plain_kernels = denoise()
    with model.exact_attention():
        safe, safe_kernels = denoise()
    after, after_kernels = denoise()
    assert plain_kernels == after_kernels == {"aten::_scaled_dot_product_flash_attention_for_cpu"}
    assert safe_kernels == {"aten::_scaled_dot_product_attention_math"}
    assert (safe - plain).abs().max() <= 1e-4 * plain.abs().max()
    assert torch.equal(after, plain)


def test_closing_restores_the_pipeline(tmp_path: Path) -> None:
    tiny.wan_pipeline().save_pretrained(tmp_path / "weights")
    model = load("wan2.1", tmp_path / "weights")
    assert isinstance(model, DiffusersModel)
    transformer = model.pipeline.transformer
    model.close()
    assert {type(processor).__name__ for processor in transformer.attn_processors.values()} == {
        "WanAttnProcessor"
    }
    assert not hasattr(model, "pipeline")
