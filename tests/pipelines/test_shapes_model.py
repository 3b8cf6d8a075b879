"""The Shapes model as it is shipped: an ordinary diffusers folder that answers prompts, and negative prompts under NAG.

A few clips from fixed seeds; `python -m pipelines.shapes.evaluate` measures over thousands.
"""

import pytest
import torch
from diffusers import WanPipeline

from pipelines.config import PACKAGED_WEIGHTS, load_model_config, model_paths
from pipelines.loading import inspect_model
from pipelines.shapes.captions import caption
from pipelines.shapes.evaluate import Sampling, Task, followed, make_tasks, render, share
from pipelines.shapes.text import MAX_TOKENS
from pipelines.shapes.world import sample_clip

pytestmark = pytest.mark.models

WEIGHTS = PACKAGED_WEIGHTS / "shapes-wan"
MAX_WEIGHTS_BYTES = 12_000_000
CONFIG = load_model_config(model_paths()["shapes-wan"])
SAMPLING = Sampling(num_steps=8, guidance_scale=CONFIG.sampling.guidance_scale)


@pytest.fixture(scope="module")
def pipeline() -> WanPipeline:
    loaded = WanPipeline.from_pretrained(WEIGHTS, use_safetensors=True)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_the_weights_are_fit_to_load_and_small() -> None:
    path = model_paths()["shapes-wan"]
    assert inspect_model(load_model_config(path), path).folder == WEIGHTS
    assert sum(file.stat().st_size for file in WEIGHTS.rglob("*") if file.is_file()) <= MAX_WEIGHTS_BYTES


def test_prompts_are_followed(pipeline: WanPipeline) -> None:
    tasks = make_tasks(40, seed=7)
    assert share(followed(tasks, list(render(pipeline, tasks, SAMPLING)))) >= 0.9


def test_a_negative_prompt_removes_what_it_names(pipeline: WanPipeline) -> None:
    tasks = [Task({"shape": "circle"}, "a circle", seed) for seed in range(60)]
    plain = list(render(pipeline, tasks, SAMPLING))
    (most_common,) = {max(colours := [v.colour for v in plain if v.colour], key=colours.count)}
    negative = (most_common, CONFIG.nag)
    guided = list(render(pipeline, tasks, SAMPLING, negative))
    before, after = (share([v.colour == most_common for v in verdicts]) for verdicts in (plain, guided))
    assert before >= 1 / 6
    assert after <= before / 5
    assert share(followed(tasks, guided)) >= share(followed(tasks, plain)) - 0.05


def test_what_the_negative_prompt_does_not_name_stays_possible(pipeline: WanPipeline) -> None:
    tasks = [Task({"colour": "red"}, "a red circle", seed) for seed in range(20)]
    guided = list(render(pipeline, tasks, SAMPLING, ("blue", CONFIG.nag)))
    assert share([verdict.colour == "red" for verdict in guided]) >= 0.9


def test_the_tokenizer_and_the_text_encoder_are_the_models_own(pipeline: WanPipeline) -> None:
    tokens = pipeline.tokenizer("a red circle")["input_ids"]
    assert tokens[-1] == pipeline.tokenizer.eos_token_id
    assert pipeline.tokenizer.unk_token_id not in tokens
    one, other = (
        pipeline.encode_prompt(text, do_classifier_free_guidance=False, max_sequence_length=48)[0]
        for text in ("red", "blue")
    )
    assert not torch.equal(one, other)


def test_no_caption_is_cut(pipeline: WanPipeline) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [len(pipeline.tokenizer(caption(sample_clip(generator), generator))["input_ids"]) for _ in range(1000)]
    assert max(lengths) <= MAX_TOKENS
