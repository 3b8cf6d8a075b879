"""The table of guided pipelines is that of the installed diffusers."""

import inspect
import re
from importlib import import_module

import diffusers
import pytest

import nag
from docs.nag_pipelines import PAGE, page
from nag.attention.denoising_calls import BATCHED_CALL, GUIDED_ROWS
from nag.attention.pipeline_passes import PASSES
from nag.installation.support import prompt_pipelines

NEEDS_OPENCV = {"ConsisIDPipeline": "diffusers.pipelines.consisid.pipeline_consisid"}
# The rows of a batched call, by the text that it is called with.
BATCHES = {
    "batched": re.compile(
        r"cat\(\s*\[\s*negative_prompt_embeds(_t5)?, prompt_embeds"
        r"|cat\(\[neg, cond\], dim=0\)"
        r"|cat\(\s*\[\s*self\._pad_sequence\(negative_prompt_embeds, \w+\),"
        r"\s*self\._pad_sequence\(prompt_embeds,"
        r"|cat\(\[uncond_text_embeddings, text_embeddings\]"
        r"|cfg_text_hiddens = list\(uncond_text_hiddens\) \+ list\(text_hiddens\)"
    ),
    "prompt half": re.compile(
        r"cat\(\[prompt_embeds, negative_prompt_embeds\], dim=0\)"
        r"|prompt_embeds_model_input = prompt_embeds \+ negative_prompt_embeds"
    ),
    "prompt third": re.compile(r"cat\(\s*\[\s*prompt_embeds(, negative_prompt_embeds){2}"),
}
# The steps that a loop goes over, which the range of NAG counts.
STEPS = re.compile(
    r"for i, t in enumerate\((timesteps|step_matrix|self\.scheduler\.timesteps"
    r"|self\.progress_bar\([\w.\[\]:-]+\))\):"
)


def test_the_page_lists_every_prompt_pipeline_of_the_installed_diffusers() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m docs.nag_pipelines"
    assert len(prompt_pipelines()) > 250


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # Kolors' import
def test_every_exported_pipeline_that_takes_a_prompt_is_on_the_list() -> None:
    """By the classes themselves; those of the list were found in the sources."""
    exported: dict[str, str] = vars(diffusers)["_class_to_module"]
    listed = {one.name for one in prompt_pipelines()}
    others = [name for name in exported if exported[name] == "pipelines" and name not in listed]
    assert len(others) > 20
    assert [name for name in others if texts_of(getattr(diffusers, name))] == []
    assert texts_of(diffusers.FluxPipeline) == ["prompt", "negative_prompt"]
    assert texts_of(diffusers.VisualClozePipeline) == ["task_prompt", "content_prompt"]


def texts_of(kind: type) -> list[str]:
    """Return the arguments of a class's call that hold a text."""
    names = inspect.signature(kind.__call__).parameters
    return [name for name in names if name.endswith("prompt") and not name.startswith("num_")]


def test_a_pipeline_says_why_it_is_not_guided() -> None:
    reasons = {one.name: one.reason for one in prompt_pipelines()}
    assert reasons["VersatileDiffusionDualGuidedPipeline"] == "deprecated by diffusers"
    assert reasons["StableDiffusionOnnxPipeline"] == "deprecated by diffusers"
    assert "generation_pipe" in reasons["VisualClozePipeline"]
    assert "several prompts" in reasons["LEditsPPPipelineStableDiffusionXL"]
    assert reasons["SanaWMLTX2Refiner"].startswith("no adapter for")


def test_every_pipeline_with_known_passes_is_guided() -> None:
    assert {one.name for one in nag.supported()} == set(PASSES)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # Kolors' import
@pytest.mark.parametrize("name", PASSES)
def test_the_source_of_a_pipeline_tells_its_passes_as_listed(name: str) -> None:
    kind = getattr(diffusers, name)
    if kind.__module__.startswith("diffusers.utils.dummy"):  # OpenCV is missing
        kind = getattr(import_module(NEEDS_OPENCV[name]), name)
    whole = inspect.getsource(kind)
    source = inspect.getsource(inspect.unwrap(kind.__call__))
    names = set(re.findall(r"cache_context\(\"(\w+)\"", source))
    assert STEPS.search(source)
    num_calls = len(re.findall(r"\b(?:self\.(?:transformer|unet)|current_model)\(\s", source))
    match PASSES[name]:
        case "named":
            if "cache_context(context_name)" in source:  # the guider's name of the pass
                assert re.search(r"context_name = getattr\(\w+, (self\.)?guider\._iden", source)
                assert num_calls == 1
                return
            assert names
            assert names <= {*GUIDED_ROWS, BATCHED_CALL}
        case "batched":
            assert names <= {BATCHED_CALL}
            # SD3 calls once more with layers left out, after the batch.
            assert num_calls == 1 + source.count("skip_layers=")
            assert BATCHES["batched"].search(whole)
            assert not BATCHES["prompt third"].search(whole)
        case "prompt third":
            assert num_calls == 1
            assert BATCHES["prompt third"].search(whole)
            assert not BATCHES["batched"].search(whole)
        case "prompt half":
            assert num_calls == 1
            assert not names
            assert [form for form, batch in BATCHES.items() if batch.search(source)] == [
                "prompt half"
            ]
        case "prompt last":
            assert num_calls == 1
            assert re.search(r"prompts=\[(negative_prompt, ){1,2}prompt_str\]", source)
            assert not any(batch.search(whole) for batch in BATCHES.values())
        case "single":
            # Klein has one form of the call for the first step, and two for the others.
            assert num_calls == (3 if 'kv_cache_mode="extract"' in source else 1)
            assert not any(batch.search(whole) for batch in BATCHES.values())
        case "prompt first":
            assert not names
            assert num_calls == 2


def test_a_pipeline_tells_its_attention_and_methods_without_a_model() -> None:
    names = ("StableDiffusion3Pipeline", "ZImagePipeline", "VisualClozePipeline")
    chosen = [one for one in prompt_pipelines() if one.name in names]
    found = {one.name: (one.attention, one.methods) for one in chosen}
    assert found == {
        "StableDiffusion3Pipeline": ("joint", ("nag", "vsf")),
        "ZImagePipeline": ("sequence", ("nag",)),
        "VisualClozePipeline": (None, ()),
    }
