"""LTX-2 as the farm renders it: video and sound, loaded from disk, against the stock pipeline."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import nag
from nag.params import NagParams
from pipelines.catalog.clip_rules import check_request
from pipelines.catalog.folder_facts import check_by_facts, check_facts, needs_facts, read_facts
from pipelines.catalog.keys.ltx2_guidance import Ltx2Guidance
from pipelines.catalog.model_config import (
    ModelConfig,
    SamplingDefaults,
    SchedulerConfig,
    ShapeGrid,
)
from pipelines.catalog.model_folder import check_folder, inspect_model
from pipelines.catalog.tokenizer import digest_of, load_tokenizer
from pipelines.clip_inputs import NO_INPUTS, ClipInputs
from pipelines.context_parallel.divisibility import check_parallel
from pipelines.context_parallel.geometry import read_geometry
from pipelines.errors import FrameCheckError, ModelConfigError, ModelFolderError, RequestError
from pipelines.families.decode import fetch_audio, fetch_frames
from pipelines.families.device import TorchDevice
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.ltx2 import LTX2ImageToVideoModel, LTX2Model
from pipelines.families.registry import load_model
from pipelines.families.weight_shapes import check_weight_shapes
from pipelines.parallel_config import ParallelConfig
from pipelines.request import (
    GenerationRequest,
    GuidanceMethod,
    SamplingParams,
    VideoFrames,
    VideoShape,
)
from tests.builders import tiny_ltx2
from tests.nag.ltx2_by_hand import OFF

FRAMES, SIZE, FPS, STEPS = 9, 64, 8.0, 2
SHARP = NagParams(9, 2.5, 0.5)
REQUEST = GenerationRequest(
    "a circle",
    "red",
    VideoShape(FRAMES, SIZE, SIZE),
    FPS,
    SamplingParams(STEPS, guidance_scale=1.0, flow_shift=None, seed=3),
    SHARP,
)
GUIDED = replace(REQUEST, method="cfg+nag", sampling=replace(REQUEST.sampling, guidance_scale=3.0))
STOCK: dict[str, Callable[[], Any]] = {
    "2.0": tiny_ltx2.pipeline,
    "2.3": lambda: tiny_ltx2.pipeline(is_23=True),
    "2.0-i2v": tiny_ltx2.image_to_video_pipeline,
}
RATES = {"2.0": 16_000, "2.3": 48_000, "2.0-i2v": 16_000}
CPU = TorchDevice(torch.device("cpu"))


def picture(seed: int) -> ClipInputs:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)
    return ClipInputs(image=image)


@cache
def stock_of(name: str) -> Any:
    return STOCK[name]()


def config_of(name: str, folder: Path, **changes: Any) -> ModelConfig:
    values: dict[str, Any] = {
        "name": name,
        "family": "ltx2",
        "pipeline": "LTX2ImageToVideoPipeline" if name.endswith("i2v") else None,
        "source": str(folder),
        "grid": ShapeGrid(8, 32, 32),
        "sampling": SamplingDefaults(STEPS, 1.0, FRAMES, SIZE, SIZE, FPS),
        "dtype": "float32",
        "device": "cpu",
        "max_sequence_length": tiny_ltx2.MAX_TOKENS,
    }
    return ModelConfig(**values | changes)


@pytest.fixture(scope="module", params=list(STOCK))
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> DiffusersModel:
    folder = tmp_path_factory.mktemp("model") / "weights"
    name = request.param
    # One folder serves both pipelines of 2.0, as on the hub.
    STOCK[name.removesuffix("-i2v")]().save_pretrained(folder)
    config = config_of(name, folder)
    return load_model(config, inspect_model(config, folder / "mine.yaml"), 1)


def inputs_of(model: DiffusersModel, seed: int = 0) -> ClipInputs:
    return picture(seed) if model.config.name.endswith("i2v") else NO_INPUTS


def render(
    model: DiffusersModel, request: GenerationRequest, inputs: ClipInputs | None = None
) -> VideoFrames:
    embeddings = model.encode_text(request)
    embeddings = replace(embeddings, inputs=inputs_of(model) if inputs is None else inputs)
    latents = model.denoise(request, embeddings, lambda _step: None)
    assert latents.shape[0] == 1
    assert latents.ndim == 2
    return model.decode(request, latents).result()


def same(one: VideoFrames, other: VideoFrames) -> bool:
    assert one.audio is not None
    assert other.audio is not None
    return np.array_equal(one.frames, other.frames) and np.array_equal(
        one.audio.samples, other.audio.samples
    )


def render_stock(
    model: DiffusersModel,
    request: GenerationRequest,
    output_type: str,
    *,
    is_guided: bool = True,
    other: dict[str, Any] | None = None,
) -> Any:
    """Return the clip of a stock pipeline, called as its own users call it."""
    name, scale = model.config.name, request.sampling.guidance_scale
    stock, image = stock_of(name), inputs_of(model).image
    inputs: dict[str, Any] = {}
    if image is not None:
        inputs = {"image": Image.fromarray(image.numpy()), "image_crf": 0}
    passes = {**OFF, "guidance_scale": scale, "audio_guidance_scale": scale}
    passes |= {"guidance_rescale": 0.0, "audio_guidance_rescale": 0.0} | (other or {})
    guidance = nag.guide(stock, "red", SHARP, max_sequence_length=tiny_ltx2.MAX_TOKENS)
    with guidance if is_guided else nullcontext():
        return stock(
            prompt=request.prompt,
            negative_prompt="",
            height=SIZE,
            width=SIZE,
            num_frames=FRAMES,
            frame_rate=FPS,
            num_inference_steps=STEPS,
            max_sequence_length=tiny_ltx2.MAX_TOKENS,
            use_cross_timestep=name == "2.3",
            generator=torch.Generator().manual_seed(3),
            output_type=output_type,
            **inputs,
            **passes,
        )


@pytest.mark.parametrize("request_", [REQUEST, GUIDED], ids=["nag", "cfg+nag"])
def test_latents_of_video_and_sound_are_those_of_the_stock_pipeline(
    model: DiffusersModel, request_: GenerationRequest
) -> None:
    """The stock pipeline draws its noise itself, and its texts go through its connectors."""
    embeddings = replace(model.encode_text(request_), inputs=inputs_of(model))
    found = model.denoise(request_, embeddings, lambda _step: None)
    clips = [render_stock(model, request_, "latent", is_guided=guided) for guided in (True, False)]
    for part in ("frames", "audio"):
        expected, plain = (getattr(clip, part).flatten() for clip in clips)
        ours = found[0, : len(expected)] if part == "frames" else found[0, -len(expected) :]
        assert (ours - expected).abs().max() < 1e-4
        assert (ours - plain).abs().max() > 2e-2


def test_frames_and_sound_are_those_of_the_stock_pipeline(model: DiffusersModel) -> None:
    expected, found = render_stock(model, REQUEST, "np"), render(model, REQUEST)
    assert (found.frames.shape, found.frames.dtype) == ((FRAMES, SIZE, SIZE, 3), np.uint8)
    assert np.abs(found.frames - expected.frames[0] * 255).max() <= 0.52  # rounded to bytes
    assert found.audio is not None
    samples, waveform = found.audio.samples, expected.audio[0].T.numpy()
    common = min(len(samples), len(waveform))
    assert np.abs(samples[:common] - waveform[:common]).max() < 1e-4 * np.abs(waveform).max()


def test_the_sound_lasts_as_long_as_the_video(model: DiffusersModel) -> None:
    audio = render(model, REQUEST).audio
    assert audio is not None
    assert audio.sample_rate == RATES[model.config.name]
    assert audio.samples.shape == (round(FRAMES / FPS * audio.sample_rate), 2)
    assert audio.samples.dtype == np.float32
    assert 0 < np.abs(audio.samples).max() <= 1


def test_a_clip_is_the_same_alone_and_after_others(model: DiffusersModel) -> None:
    alone = render(model, REQUEST)
    other = render(model, replace(GUIDED, prompt="a dog", fps=5.0), inputs_of(model, 1))
    assert not np.array_equal(other.frames, alone.frames)
    seed = render(model, replace(REQUEST, sampling=replace(REQUEST.sampling, seed=4)))
    assert not same(seed, alone)
    assert same(render(model, REQUEST), alone)


def test_a_clip_without_sound_has_the_same_frames(model: DiffusersModel) -> None:
    silent = render(model, replace(REQUEST, audio=False))
    assert silent.audio is None
    assert np.array_equal(silent.frames, render(model, REQUEST).frames)


def test_a_scale_of_1_is_no_guidance_bit_for_bit(model: DiffusersModel) -> None:
    plain = render(model, replace(REQUEST, method="none"))
    assert same(render(model, replace(REQUEST, nag=NagParams(1))), plain)
    assert str(model.nag_coverage) == "4 of 4"


def test_a_plan_counts_the_tokens_that_the_text_encoder_reads(model: DiffusersModel) -> None:
    tokenizer = load_tokenizer(Path(model.config.source), model.config)
    for text in ("", "a red cat", "  a red cat ", "a red cat and a blue dog"):
        ids = model.pipeline.tokenizer(
            text.strip(), max_length=tiny_ltx2.MAX_TOKENS, truncation=True
        ).input_ids
        assert tokenizer.tokens(text).digest == digest_of(ids)
    assert tokenizer.tokens("a red cat").count == 10  # with the one that begins a text


def test_one_clip_on_several_devices_is_refused(model: DiffusersModel) -> None:
    geometry = read_geometry(Path(model.config.source), model.config)
    assert geometry.num_tokens(REQUEST.shape) == 2 * 2 * 2
    check_parallel(ParallelConfig(), geometry, REQUEST.shape, model.config)
    with pytest.raises(RequestError, match="renders a clip of .* on one device"):
        check_parallel(ParallelConfig(ulysses=2), geometry, REQUEST.shape, model.config)


def test_another_image_gives_another_video_that_begins_with_it(
    tmp_path: Path,
) -> None:
    stock = stock_of("2.0-i2v")
    stock.save_pretrained(tmp_path / "weights")
    config = config_of("2.0-i2v", tmp_path / "weights")
    model = load_model(config, inspect_model(config, tmp_path / "mine.yaml"), 1)
    assert isinstance(model, LTX2ImageToVideoModel)
    one, other = (render(model, REQUEST, picture(seed)) for seed in (0, 1))
    assert not np.array_equal(one.frames, other.frames)
    inputs = picture(0)
    assert inputs.image is not None
    noise = model._noise(REQUEST, replace(model.encode_text(REQUEST), inputs=inputs))
    values = 2 * (inputs.image.float() / 255) - 1
    encoded = model.pipeline.vae.encode(values.permute(2, 0, 1)[None, :, None]).latent_dist.mode()
    assert torch.equal(noise["latents"][:, :, :1], encoded)


FURTHER = Ltx2Guidance(
    stg_scale=1.0,
    modality_scale=2.0,
    spatio_temporal_guidance_blocks=(1,),
    audio_modality_scale=3.0,
    audio_guidance_scale=5.0,
    audio_guidance_rescale=0.4,
)


@pytest.fixture(scope="module")
def further(tmp_path_factory: pytest.TempPathFactory) -> DiffusersModel:
    folder = tmp_path_factory.mktemp("further") / "weights"
    STOCK["2.3"]().save_pretrained(folder)
    config = config_of("2.3", folder, ltx2_guidance=FURTHER)
    return load_model(config, inspect_model(config, folder / "mine.yaml"), 1)


@pytest.mark.parametrize("method", ["none", "nag", "cfg+nag"])
def test_the_further_guidance_of_a_yaml_is_that_of_the_stock_pipeline(
    further: DiffusersModel, method: GuidanceMethod
) -> None:
    """Under NAG the weak predictions stay unguided, as `tests.nag.test_ltx2_guidance` proves."""
    sampling = GUIDED.sampling if method == "cfg+nag" else REQUEST.sampling
    request = replace(REQUEST, method=method, sampling=replace(sampling, guidance_rescale=0.7))
    found = further.denoise(request, further.encode_text(request), lambda _step: None)
    passes: dict[str, Any] = {**asdict(FURTHER), "audio_stg_scale": 1.0, "guidance_rescale": 0.7}
    passes["spatio_temporal_guidance_blocks"] = [1]
    if not request.has_cfg:
        del passes["audio_guidance_scale"]
    is_guided = method != "none"
    stock = render_stock(further, request, "latent", is_guided=is_guided, other=passes)
    plain = render_stock(further, request, "latent", is_guided=is_guided)
    for part in ("frames", "audio"):
        expected, without = (getattr(clip, part).flatten() for clip in (stock, plain))
        ours = found[0, : len(expected)] if part == "frames" else found[0, -len(expected) :]
        assert (ours - expected).abs().max() < (2e-4 if is_guided else 1e-5)
        assert (ours - without).abs().max() > 2e-2


@pytest.mark.parametrize(
    ("sizes", "message"),
    [((32, 64), "height must be at least 64"), ((64, 32), "width must be at least 64")],
)
def test_a_clip_that_the_autoencoder_cannot_decode_is_refused(
    further: DiffusersModel, sizes: tuple[int, int], message: str
) -> None:
    facts = read_facts(Path(further.config.source))
    small = replace(REQUEST, shape=VideoShape(FRAMES, *sizes))
    assert needs_facts(further.config, small)
    check_by_facts(further.config, facts, REQUEST)
    with pytest.raises(RequestError, match=message):
        check_by_facts(further.config, facts, small)
    latents = further.denoise(small, further.encode_text(small), lambda _step: None)
    with pytest.raises(RuntimeError, match="[Pp]adding"):
        further.decode(small, latents)


@pytest.mark.parametrize(
    ("name", "guidance", "message"),
    [
        ("2.0", FURTHER, "lacks perturbed_attn"),
        ("2.3", replace(FURTHER, spatio_temporal_guidance_blocks=(2,)), "has 2 blocks"),
    ],
)
def test_stg_of_a_transformer_that_it_cannot_perturb_is_refused(
    name: str, guidance: Ltx2Guidance, message: str, tmp_path: Path
) -> None:
    stock_of(name).transformer.save_config(tmp_path / "transformer")
    with pytest.raises(ModelFolderError, match=message):
        check_facts(config_of(name, tmp_path, ltx2_guidance=guidance), tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stg_scale": -1.0}, "stg_scale must be between 0 and 100"),
        ({"modality_scale": 0.5}, "modality_scale must be between 1 and 100"),
        ({"audio_guidance_rescale": 1.5}, "audio_guidance_rescale must be between 0 and 1"),
        ({"stg_scale": 1.0}, "need each other"),
        ({"spatio_temporal_guidance_blocks": (1,)}, "need each other"),
        (
            {"stg_scale": 1.0, "spatio_temporal_guidance_blocks": (1, 1)},
            "must be different numbers from 0",
        ),
        (
            {"stg_scale": 1.0, "spatio_temporal_guidance_blocks": (1,), "audio_stg_scale": 0.0},
            "diffusers takes 0 for the value of the video",
        ),
    ],
)
def test_further_guidance_that_diffusers_cannot_follow_is_refused(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelConfigError, match=message):
        Ltx2Guidance(**values)


def test_a_rescale_needs_a_guided_prediction(tmp_path: Path) -> None:
    request = replace(REQUEST, sampling=replace(REQUEST.sampling, guidance_rescale=0.5))
    check_request(config_of("2.3", tmp_path, ltx2_guidance=FURTHER), request)
    with pytest.raises(RequestError, match="no classifier-free guidance that it could act on"):
        check_request(config_of("2.3", tmp_path), request)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_block_cache": 0.1}, "does not know the blocks of LTX2Pipeline"),
        ({"scheduler": SchedulerConfig(flow_shift=3.0)}, "by the number of tokens"),
        ({"pipeline": "LTXPipeline"}, "LTX2Pipeline, LTX2ImageToVideoPipeline"),
        ({"family": "ltx", "ltx2_guidance": FURTHER}, "is for the family ltx2"),
    ],
)
def test_a_yaml_that_ltx2_cannot_follow_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelConfigError, match=message):
        config_of("mine", tmp_path, **changes)


def test_a_length_that_the_registers_do_not_divide_is_refused(tmp_path: Path) -> None:
    config = config_of("mine", tmp_path, max_sequence_length=12)
    with pytest.raises(ModelConfigError, match="a multiple of 8, the registers"):
        LTX2Model(config, tiny_ltx2.pipeline(), torch.device("cpu"))


def test_a_folder_without_a_vocoder_or_with_half_of_its_weights_is_refused(
    tmp_path: Path,
) -> None:
    tiny_ltx2.pipeline().save_pretrained(tmp_path)
    row = config_of("mine", tmp_path).pipeline_class
    check_folder(tmp_path, row)
    check_weight_shapes(tmp_path)
    connectors = tmp_path / "connectors" / "diffusion_pytorch_model.safetensors"
    weights = load_file(connectors)
    removed = min(weights)
    del weights[removed]
    save_file(weights, connectors)
    with pytest.raises(ModelFolderError, match=f"lacks {removed}"):
        check_weight_shapes(tmp_path)
    (tmp_path / "vocoder").rename(tmp_path / "other")
    with pytest.raises(ModelFolderError, match="'vocoder' is missing"):
        check_folder(tmp_path, row)


@pytest.mark.parametrize("num_samples", [90, 100, 130])
def test_a_sound_is_cut_or_padded_with_silence(num_samples: int) -> None:
    waveform = torch.full((1, 2, num_samples), 2.0)  # louder than a sample can be
    samples = fetch_audio(waveform, 100, 1.0, CPU).result().samples
    assert samples.shape == (100, 2)
    assert samples[: min(num_samples, 100)].min() == 1
    assert not samples[num_samples:].any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_sound_with_values_that_are_not_finite_is_refused_when_it_is_read(value: float) -> None:
    waveform = torch.zeros(1, 2, 100)
    waveform[0, 1, 50] = value
    audio = fetch_audio(waveform, 100, 1.0, CPU)
    frames = fetch_frames(torch.zeros(1, 3, 1, 2, 2), 8.0, CPU, audio)
    with pytest.raises(FrameCheckError, match="the decoded sound holds NaN or infinite") as refused:
        frames.result()
    assert refused.value.check == "NaN"
