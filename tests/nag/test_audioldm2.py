"""AudioLDM 2: its encoder's three results, and the layouts of a UNet."""

from typing import Any

import pytest
import torch
from diffusers import AudioLDM2Pipeline, AudioLDM2UNet2DConditionModel

from nag import NegativeText, UnsupportedPipelineError, install
from tests.builders import tiny_cross_attention
from tests.builders.tiny import TEXT_DIM
from tests.nag.cross_families import FAMILIES, STRONG, seeded
from tests.nag.reference import mask

AUDIOLDM2 = FAMILIES["AudioLDM 2"]


def _encode(
    pipeline: Any,
    prompt: Any,
    device: Any,
    num_waveforms_per_prompt: int,
    do_classifier_free_guidance: bool,
    transcription: Any = None,
    negative_prompt: Any = None,
    **given: Any,
) -> Any:
    if prompt is not None:
        assert not do_classifier_free_guidance
        return texts_of(prompt)
    about = (device, num_waveforms_per_prompt, do_classifier_free_guidance)
    return AudioLDM2Pipeline.encode_prompt(pipeline, prompt, *about, transcription, **given)


class AudioLDM2OfWords(AudioLDM2Pipeline):
    """Makes a text of the number of its letters."""

    encode_prompt: Any = _encode


def texts_of(prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    count = len(prompts[0])
    return seeded(count, 1, 5, TEXT_DIM), mask(5, 3), seeded(count + 1, 1, 8, TEXT_DIM)


def test_a_negative_prompt_of_words_is_that_of_the_pipelines_encoder() -> None:
    stock = tiny_cross_attention.audioldm2_pipeline()
    kind: Any = AudioLDM2OfWords
    pipeline = kind(**stock.components)
    pipeline.set_progress_bar_config(disable=True)
    embeds, of_embeds, generated = texts_of(["noise"])
    negative = NegativeText(generated, second_embeds=embeds, second_mask=of_embeds)
    with install(pipeline) as nag:
        with nag.guide(negative, **STRONG):
            guided = AUDIOLDM2.render(pipeline, 1, cfg=False)
        with nag.guide("noise", **STRONG):
            assert torch.equal(AUDIOLDM2.render(pipeline, 1, cfg=False), guided)


def test_a_unet_whose_attentions_go_by_another_order_is_refused() -> None:
    pipeline = tiny_cross_attention.audioldm2_pipeline()
    config = {**pipeline.unet.config, "cross_attention_dim": [[None, TEXT_DIM]] * 2}
    pipeline.unet = AudioLDM2UNet2DConditionModel.from_config(config)
    with pytest.raises(UnsupportedPipelineError, match="3 attentions in each place"):
        install(pipeline)
