"""LTX in two stages on real classes at tiny size: half size, latents doubled, denoised again."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    LTX2ImageToVideoPipeline,
    LTX2LatentUpsamplePipeline,
    LTXConditionPipeline,
    LTXLatentUpsamplePipeline,
)
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from PIL import Image
from safetensors.torch import load_file, save_file

from nag.params import NagParams
from pipelines.catalog.clip_rules import check_request
from pipelines.catalog.keys.scheduler_config import SchedulerConfig
from pipelines.catalog.keys.second_stage import SecondStage
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.catalog.model_folder import inspect_model
from pipelines.catalog.upsampler_files import check_upsampler
from pipelines.clip_inputs import NO_INPUTS, ClipInputs
from pipelines.cost.activations import Clip
from pipelines.cost.memory import memory_need
from pipelines.errors import ModelConfigError, ModelFolderError, ModelNotFoundError, RequestError
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.registry import load_model
from pipelines.families.second_stage import SECOND_STAGE_SEED_MASK
from pipelines.families.worker_weights import verify_weights
from pipelines.request import GenerationRequest, SamplingParams, VideoShape
from tests.builders import tiny, tiny_ltx2
from tests.builders.tiny_upsamplers import upsampler
from tests.nag.ltx2_by_hand import OFF
from tests.nag.reference import Guidance, cross_attention_by_hand

# FlowMatchEulerDiscreteScheduler makes an array of the pipeline's tensor, for which NumPy 2 warns.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
FRAMES, SIZE, SEED = 9, 64, 3
SHARP = NagParams(9, 2.5, 0.5)
REQUEST = GenerationRequest(
    "a circle",
    "red",
    VideoShape(FRAMES, SIZE, SIZE),
    8.0,
    SamplingParams(num_inference_steps=3, guidance_scale=1.0, flow_shift=None, seed=SEED),
    SHARP,
)
LISTED = SecondStage(
    "./upsampler",
    subfolder="",
    timesteps=(909, 725, 421),
    adain_factor=1.0,
    tone_map_compression_ratio=0.6,
)
PARTIAL = SecondStage("./upsampler", subfolder="", num_inference_steps=5, denoise_strength=0.4)
OF_LTX2 = SecondStage("./upsampler", subfolder="", sigmas=(0.909375, 0.725))
EULER = "FlowMatchEulerDiscreteScheduler"


def picture() -> torch.Tensor:
    generator = torch.Generator().manual_seed(8)
    return torch.randint(0, 256, (SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)


INPUTS = {"text": NO_INPUTS, "image": ClipInputs(image=picture())}


def stock(family: str) -> Any:
    parts: Any = tiny.ltx_pipeline().components if family == "ltx" else tiny_ltx2.parts()
    pipeline = (LTXConditionPipeline if family == "ltx" else LTX2ImageToVideoPipeline)(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def config_of(folder: Path, family: Any, stage: SecondStage | None, **changes: Any) -> ModelConfig:
    is_ltx = family == "ltx"
    values: dict[str, Any] = {
        "name": "two",
        "family": family,
        "pipeline": "LTXConditionPipeline" if is_ltx else "LTX2ImageToVideoPipeline",
        "source": str(folder / "weights"),
        "grid": ShapeGrid(8, 64, 64),
        "sampling": SamplingDefaults(3, 1.0, FRAMES, SIZE, SIZE, 8.0),
        "scheduler": SchedulerConfig(EULER, sigmas=(1.0, 0.8, 0.3)),
        "dtype": "float32",
        "device": "cpu",
        "max_sequence_length": 16,
        "second_stage": stage,
    }
    return ModelConfig(**values | changes)


@pytest.fixture(scope="module", params=["ltx", "ltx2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp(request.param)
    stock(request.param).save_pretrained(place / "weights")
    upsampler(request.param).save_pretrained(place / "upsampler")
    return place


def family_of(folder: Path) -> str:
    return "ltx2" if (folder / "weights" / "vocoder").is_dir() else "ltx"


@pytest.fixture(scope="module")
def model(folder: Path) -> DiffusersModel:
    family = family_of(folder)
    config = config_of(folder, family, LISTED if family == "ltx" else OF_LTX2)
    return load_model(config, inspect_model(config, folder / "two.yaml"), 1)


def inputs_of(model: DiffusersModel, name: str | None = None) -> ClipInputs:
    return INPUTS[name or ("text" if model.config.family == "ltx" else "image")]


def denoise(
    model: DiffusersModel, request: GenerationRequest, name: str | None = None
) -> torch.Tensor:
    embeddings = replace(model.encode_text(request), inputs=inputs_of(model, name))
    return model.denoise(request, embeddings, lambda _step: None)


def call_ltx(pipeline: Any, request: GenerationRequest, name: str, **arguments: Any) -> Any:
    image = INPUTS[name].image
    condition = None if image is None else [LTXVideoCondition(Image.fromarray(image.numpy()))]
    return pipeline(
        conditions=condition,
        prompt=request.prompt,
        negative_prompt="",
        num_frames=FRAMES,
        frame_rate=8.0,
        guidance_scale=request.sampling.guidance_scale,
        image_cond_noise_scale=0.0,
        max_sequence_length=16,
        output_type="latent",
        **arguments,
    ).frames


def ltx_by_hand(
    request: GenerationRequest, name: str, second: dict[str, Any], guidance: Any = None
) -> torch.Tensor:
    """Return the latents of three stock pipelines, called as their own users call them."""
    pipeline = stock("ltx")
    with guidance(pipeline) if guidance else nullcontext():
        first = call_ltx(
            pipeline,
            request,
            name,
            height=SIZE // 2,
            width=SIZE // 2,
            timesteps=[1000, 800, 300],
            generator=torch.Generator().manual_seed(SEED),
        )
        doubling: Any = LTXLatentUpsamplePipeline(
            vae=pipeline.vae, latent_upsampler=upsampler("ltx")
        )
        is_listed = "timesteps" in second
        settings = {"adain_factor": 1.0, "tone_map_compression_ratio": 0.6} if is_listed else {}
        latents = doubling(latents=first, output_type="latent", **settings).frames
        generator = torch.Generator().manual_seed(SEED ^ SECOND_STAGE_SEED_MASK)
        return call_ltx(
            pipeline,
            request,
            name,
            height=SIZE,
            width=SIZE,
            latents=latents,
            generator=generator,
            **second,
        )


# As published for the distilled LTX-Video: the first level is skipped, and the last step is empty.
PUBLISHED: dict[str, Any] = {"timesteps": [1000, 909, 725, 421, 0], "denoise_strength": 0.999}


@pytest.mark.parametrize("folder", ["ltx"], indirect=True)
@pytest.mark.parametrize("name", INPUTS)
def test_listed_levels_make_the_clip_of_the_published_call_bit_for_bit(
    model: DiffusersModel, name: str
) -> None:
    expected = ltx_by_hand(REQUEST, name, PUBLISHED)
    for request in (replace(REQUEST, method="none"), replace(REQUEST, nag=NagParams(1))):
        assert torch.equal(denoise(model, request, name), expected)


@pytest.mark.parametrize("folder", ["ltx"], indirect=True)
def test_a_share_of_a_schedule_is_that_of_denoise_strength_bit_for_bit(folder: Path) -> None:
    config = config_of(folder, "ltx", PARTIAL)
    model = load_model(config, inspect_model(config, folder / "two.yaml"), 1)
    second = {"num_inference_steps": 5, "denoise_strength": 0.4}
    expected = ltx_by_hand(REQUEST, "text", second)
    assert torch.equal(denoise(model, replace(REQUEST, method="none")), expected)


@pytest.mark.parametrize("folder", ["ltx"], indirect=True)
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_nag_guides_both_stages_as_by_hand(model: DiffusersModel, scale: float) -> None:
    sampling = replace(REQUEST.sampling, guidance_scale=scale)
    request = replace(REQUEST, method="cfg+nag" if scale > 1 else "nag", sampling=sampling)
    embeddings = model.encode_text(request)
    assert embeddings.negative_prompt_embeds is not None
    guidance = Guidance(
        embeddings.negative_prompt_embeds,
        embeddings.negative_prompt_attention_mask,
        scale=SHARP.nag_scale,
        tau=SHARP.nag_tau,
        alpha=SHARP.nag_alpha,
        unconditional=embeddings.unconditional_embeds,
    )
    expected = ltx_by_hand(
        request, "image", PUBLISHED, lambda pipeline: cross_attention_by_hand(pipeline, guidance)
    )
    found = denoise(model, request, "image")
    assert (found - expected).abs().max() < 3e-4
    assert (found - ltx_by_hand(request, "image", PUBLISHED)).abs().max() > 1e-2
    assert str(model.nag_coverage) == "2 of 2"


def test_ltx2_is_that_of_the_stock_pipelines(tmp_path: Path) -> None:
    """Its image is put into the upsampled latents again, as its authors' own pipeline does."""
    pipeline = stock("ltx2")
    pipeline.save_pretrained(tmp_path / "weights")
    upsampler("ltx2").save_pretrained(tmp_path / "upsampler")
    config = config_of(tmp_path, "ltx2", OF_LTX2)
    model = load_model(config, inspect_model(config, tmp_path / "two.yaml"), 1)
    found = denoise(model, replace(REQUEST, method="none"))
    image = picture().numpy()
    common: dict[str, Any] = {
        "image": Image.fromarray(image),
        "image_crf": 0,
        "prompt": REQUEST.prompt,
        "num_frames": FRAMES,
        "frame_rate": 8.0,
        **OFF,
        "guidance_rescale": 0.0,
        "audio_guidance_rescale": 0.0,
        "max_sequence_length": 16,
        "use_cross_timestep": False,
        "output_type": "latent",
        "return_dict": False,
    }
    plain: Any = FlowMatchEulerDiscreteScheduler
    pipeline.scheduler = plain.from_config(
        pipeline.scheduler.config, use_dynamic_shifting=False, shift_terminal=None
    )
    video, sound = pipeline(
        **common,
        height=SIZE // 2,
        width=SIZE // 2,
        num_inference_steps=3,
        sigmas=[1.0, 0.8, 0.3],
        generator=torch.Generator().manual_seed(SEED),
    )
    doubling: Any = LTX2LatentUpsamplePipeline(vae=pipeline.vae, latent_upsampler=upsampler("ltx2"))
    latents = doubling(latents=video, output_type="latent", return_dict=False)[0]
    values = 2 * (torch.from_numpy(image).permute(2, 0, 1)[None, :, None].float() / 255) - 1
    first = pipeline.vae.encode(values).latent_dist.mode()
    video, sound = pipeline(
        **common,
        height=SIZE,
        width=SIZE,
        num_inference_steps=2,
        sigmas=[0.909375, 0.725],
        noise_scale=0.909375,
        latents=torch.cat([first, latents[:, :, 1:]], dim=2),
        audio_latents=sound,
        generator=torch.Generator().manual_seed(SEED ^ SECOND_STAGE_SEED_MASK),
    )
    expected = torch.cat([video.flatten(1), sound.flatten(1)], dim=1)
    assert (found - expected).abs().max() < 1e-4  # noise goes through the statistics and back
    guided = denoise(model, REQUEST)
    assert (guided - found).abs().max() > 1e-2


def test_a_clip_is_the_same_alone_and_after_another_and_counts_all_steps(
    model: DiffusersModel,
) -> None:
    alone = denoise(model, REQUEST)
    torch.manual_seed(5)
    other = replace(REQUEST, prompt="a dog", nag=replace(SHARP, nag_start=0.5))
    assert not torch.equal(denoise(model, other), alone)
    steps: list[int] = []
    embeddings = replace(model.encode_text(REQUEST), inputs=inputs_of(model))
    assert torch.equal(model.denoise(REQUEST, embeddings, steps.append), alone)
    stage = model.config.second_stage
    assert stage is not None
    assert steps == list(range(3 + stage.num_steps))
    seed = replace(REQUEST, sampling=replace(REQUEST.sampling, seed=4))
    assert not torch.equal(denoise(model, seed), alone)
    frames = model.decode(REQUEST, alone).result()
    assert frames.frames.shape == (FRAMES, SIZE, SIZE, 3)
    assert (frames.audio is not None) == (model.config.family == "ltx2")


def test_a_second_stage_without_classifier_free_guidance_keeps_that_of_the_first(
    folder: Path,
) -> None:
    family = family_of(folder)
    stage = LISTED if family == "ltx" else OF_LTX2
    guided = replace(REQUEST, method="cfg", sampling=replace(REQUEST.sampling, guidance_scale=3.0))
    rows: list[list[int]] = []
    for own in (None, 1.0):
        config = config_of(folder, family, replace(stage, guidance_scale=own))
        model = load_model(config, inspect_model(config, folder / "two.yaml"), 1)
        seen: list[int] = []
        model.pipeline.transformer.register_forward_pre_hook(
            lambda _module, _arguments, named, seen=seen: seen.append(len(named["hidden_states"])),
            with_kwargs=True,
        )
        denoise(model, guided)
        rows.append(seen)
    assert rows == [[2] * (3 + stage.num_steps), [2] * 3 + [1] * stage.num_steps]


@pytest.mark.parametrize("folder", ["ltx"], indirect=True)
def test_a_size_that_the_first_stage_has_no_half_of_is_refused(folder: Path) -> None:
    config = config_of(folder, "ltx", LISTED)
    check_request(config, REQUEST)
    with pytest.raises(RequestError, match="height must be a multiple of 64 for two: 64 or 128"):
        check_request(config, replace(REQUEST, shape=VideoShape(FRAMES, 96, SIZE)))


@pytest.mark.parametrize("folder", ["ltx"], indirect=True)
def test_other_weights_than_those_of_the_plan_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "weights", tmp_path / "weights")
    shutil.copytree(folder / "upsampler", tmp_path / "upsampler")
    config = config_of(tmp_path, "ltx", LISTED)
    planned = inspect_model(config, tmp_path / "two.yaml")
    assert verify_weights(config, planned) == planned
    here = inspect_model(config_of(folder, "ltx", LISTED), folder / "two.yaml").upsampler
    assert planned.upsampler is not None
    assert here is not None
    assert planned.upsampler.revision == here.revision  # the content counts, not the place
    torch.manual_seed(9)
    LTXLatentUpsamplerModel(8, 32, 1).save_pretrained(tmp_path / "upsampler")
    with pytest.raises(ModelFolderError, match=r"holds sha256:\w+ here, not sha256:"):
        verify_weights(config, planned)
    shutil.rmtree(tmp_path / "upsampler")
    with pytest.raises(ModelNotFoundError, match="does not exist on this machine"):
        verify_weights(config, planned)
    with pytest.raises(ModelNotFoundError, match="correct second_stage.source or subfolder"):
        inspect_model(config, tmp_path / "two.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "LTX2LatentUpsamplerModel"}, "not 'LTXLatentUpsamplerModel'"),
        ({"temporal_upsample": True}, "does not double height and width alone"),
        ({"spatial_upsample": False, "temporal_upsample": True}, "does not double"),
        ({"in_channels": 128}, "is for latents of 128 channels, and those of .* have 8"),
        ({"auto_map": {}}, "asks for code of its own"),
    ],
)
@pytest.mark.parametrize("folder", ["ltx"], indirect=True)
def test_another_kind_of_upsampler_is_refused(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    shutil.copytree(folder / "upsampler", tmp_path / "upsampler")
    path = tmp_path / "upsampler" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelFolderError, match=message):
        check_upsampler(tmp_path / "upsampler", "ltx", folder / "weights")


@pytest.mark.parametrize("folder", ["ltx"], indirect=True)
def test_an_upsampler_that_lacks_a_weight_is_refused_when_it_is_loaded(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "upsampler", tmp_path / "upsampler")
    path = tmp_path / "upsampler" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["final_conv.bias"]
    save_file(weights, path)
    config = config_of(folder, "ltx", replace(LISTED, source=str(tmp_path / "upsampler")))
    with pytest.raises(ModelFolderError, match="lacks final_conv.bias"):
        load_model(config, inspect_model(config, folder / "two.yaml"), 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": ""}, "source is missing"),
        ({"source": "a.safetensors"}, "must be a folder"),
        ({"subfolder": "../up"}, "one name of letters"),
        ({"timesteps": (1000, 500)}, "each above 0 and below 1000"),
        ({"timesteps": (400, 500)}, "must fall from step to step"),
        ({"sigmas": tuple(0.9 / k for k in range(1, 1002))}, "at most 1000 steps, not 1001"),
        ({"sigmas": (0.5,)}, "one of the three"),
        ({"timesteps": ()}, "one of the three"),
        ({"num_inference_steps": 5}, "one of the three"),
        ({"timesteps": (), "num_inference_steps": 5}, "denoise_strength must be above 0"),
        ({"timesteps": (), "denoise_strength": 0.5}, "num_inference_steps must be between 2"),
        (
            {"timesteps": (), "num_inference_steps": 2, "denoise_strength": 0.4},
            "is less than one",
        ),
        ({"guidance_scale": 0.5}, "guidance_scale must be at least 1"),
        ({"adain_factor": 2.0}, "adain_factor must be between 0 and 1"),
    ],
)
def test_a_second_stage_that_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelConfigError, match=message):
        replace(LISTED, **values)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("ltx", {"pipeline": "LTXPipeline"}, "second_stage needs pipeline: LTXConditionPipeline"),
        ("ltx", {"grid": ShapeGrid(8, 32, 32)}, "must be multiples of 64 with second_stage"),
        ("ltx2", {"second_stage": PARTIAL}, "LTX-2 has no denoise_strength"),
    ],
)
def test_a_model_that_cannot_have_a_second_stage_is_refused(
    family: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelConfigError, match=message):
        config_of(Path("/weights"), family, LISTED, **changes)


@pytest.mark.parametrize("folder", ["ltx"], indirect=True)
def test_the_memory_of_a_model_counts_its_upsampler(folder: Path) -> None:
    config = config_of(folder, "ltx", LISTED)
    weights = inspect_model(config, folder / "two.yaml")
    need = memory_need(config, weights, Clip(REQUEST.shape, "nag"))
    expected = 4 * sum(one.numel() for one in upsampler("ltx").parameters())
    assert need.weights["latent_upsampler"] == expected
