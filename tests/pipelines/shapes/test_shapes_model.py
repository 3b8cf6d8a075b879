"""The packaged Shapes models: diffusers folders that follow prompts, and negative ones under NAG.

A few clips from fixed seeds; `pipelines.shapes.measuring.evaluate` measures over thousands.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.catalog.files.sources import PACKAGED_WEIGHTS, model_paths
from pipelines.catalog.model_folder import inspect_model
from pipelines.catalog.model_yaml import load_model_config
from pipelines.shapes.captions import caption
from pipelines.shapes.measuring.rendering import (
    Sampling,
    Task,
    followed,
    load_pipeline,
    make_tasks,
    render,
    share,
)
from pipelines.shapes.training.models import MODELS
from pipelines.shapes.training.text import MAX_TOKENS
from pipelines.shapes.world import sample_clip

pytestmark = pytest.mark.models

MAX_WEIGHTS_BYTES = {"shapes-wan": 6_000_000, "shapes-ltx": 14_000_000}
CONFIGS = {name: load_model_config(model_paths()[name]) for name in MODELS}
# Docs/explanation/shapes.md measures both over more clips.
FOLLOWED = {
    "shapes-wan": 0.9,
    "shapes-ltx": 0.85,
}
SAMPLING = Sampling(num_steps=8, guidance_scale=1.0)  # as in the YAMLs of both models


def num_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.fixture(scope="module", params=list(MODELS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def pipeline(name: str) -> Any:
    return load_pipeline(MODELS[name])


@pytest.mark.parametrize("name", list(MODELS))
def test_the_weights_are_fit_to_load_and_small(name: str) -> None:
    path = model_paths()[name]
    folder = inspect_model(load_model_config(path), path).folder
    assert folder == PACKAGED_WEIGHTS / name
    assert num_bytes(folder) <= MAX_WEIGHTS_BYTES[name]


@pytest.mark.parametrize("name", [f"{name}-4step" for name in MODELS])
def test_a_few_step_model_is_its_teacher_with_a_small_lora(name: str) -> None:
    path = model_paths()[name]
    config = load_model_config(path)
    weights = inspect_model(config, path)
    assert weights.folder == PACKAGED_WEIGHTS / name.removesuffix("-4step")
    assert [lora.name for lora in config.loras] == ["few-step"]
    assert (config.sampling.num_inference_steps, config.sampling.guidance_scale, config.method) == (
        4,
        1,
        "nag",
    )
    assert num_bytes(PACKAGED_WEIGHTS / name) <= 2_000_000


def test_prompts_are_followed(name: str, pipeline: Any) -> None:
    tasks = make_tasks(40, seed=7)
    assert share(followed(tasks, list(render(pipeline, tasks, SAMPLING)))) >= FOLLOWED[name]


def test_a_negative_prompt_removes_what_it_names(name: str, pipeline: Any) -> None:
    tasks = [Task({"shape": "circle"}, "a circle", seed) for seed in range(60)]
    plain = list(render(pipeline, tasks, SAMPLING))
    (most_common,) = {max(colours := [v.colour for v in plain if v.colour], key=colours.count)}
    negative = (most_common, CONFIGS[name].nag)
    guided = list(render(pipeline, tasks, SAMPLING, negative))
    before, after = (
        share([v.colour == most_common for v in verdicts]) for verdicts in (plain, guided)
    )
    assert before >= 1 / 6
    assert after <= before / 5
    assert share(followed(tasks, guided)) >= share(followed(tasks, plain)) - 0.05


def test_values_that_the_negative_prompt_does_not_name_stay_possible(
    name: str, pipeline: Any
) -> None:
    tasks = [Task({"colour": "red"}, "a red circle", seed) for seed in range(20)]
    guided = list(render(pipeline, tasks, SAMPLING, ("blue", CONFIGS[name].nag)))
    assert share([verdict.colour == "red" for verdict in guided]) >= 0.9


def test_the_tokenizer_and_the_text_encoder_are_the_models_own(pipeline: Any) -> None:
    tokens = pipeline.tokenizer("a red circle")["input_ids"]
    assert tokens[-1] == pipeline.tokenizer.eos_token_id
    assert pipeline.tokenizer.unk_token_id not in tokens
    one, other = (
        pipeline.encode_prompt(text, do_classifier_free_guidance=False, max_sequence_length=48)[0]
        for text in ("red", "blue")
    )
    assert not torch.equal(one, other)


def test_no_caption_is_cut(pipeline: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [
        len(pipeline.tokenizer(caption(sample_clip(generator), generator))["input_ids"])
        for _ in range(1000)
    ]
    assert max(lengths) <= MAX_TOKENS
