"""Tiny models with acceleration, and requests for them."""

from dataclasses import replace
from typing import Any

import torch

from nag.params import NagParams
from pipelines.catalog.keys.scheduler_config import SchedulerConfig
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.registry import driver_of
from pipelines.request import GenerationRequest, SamplingParams, VideoShape
from tests.builders import tiny

THRESHOLD = 0.1  # with these random weights some steps are skipped and some are not
NAG = GenerationRequest(
    "a circle",
    "red",
    VideoShape(9, 32, 32),
    8.0,
    SamplingParams(num_inference_steps=8, guidance_scale=1.0, flow_shift=None, seed=3),
    NagParams(nag_scale=11),
)
CFG_AND_NAG = replace(NAG, method="cfg+nag", sampling=replace(NAG.sampling, guidance_scale=3.0))
METHODS: dict[str, GenerationRequest] = {
    "none": replace(NAG, method="none"),
    "cfg": replace(CFG_AND_NAG, method="cfg"),
    "nag": NAG,
    "cfg+nag": CFG_AND_NAG,
}


def tiny_model(name: str, pipeline: Any = None, **asked: Any) -> DiffusersModel:
    family = "ltx" if name == "ltx" else "wan"
    config = ModelConfig(
        name=name,
        family=family,
        source="package:tiny",
        grid=ShapeGrid(8, 32, 32),
        sampling=SamplingDefaults(8, 1.0, 9, 32, 32, 8.0),
        dtype="float32",
        device="cpu",
        max_sequence_length=16,
        scheduler=SchedulerConfig(None if name == "ltx" else "UniPCMultistepScheduler", None),
        **asked,
    )
    return driver_of(config.pipeline_class)(
        config, pipeline or tiny.PIPELINES[name](), torch.device("cpu")
    )


def denoise(
    model: DiffusersModel, request: GenerationRequest, on_step: Any = lambda _step: None
) -> torch.Tensor:
    return model.denoise(request, model.encode_text(request), on_step)
