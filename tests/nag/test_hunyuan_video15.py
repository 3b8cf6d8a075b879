"""HunyuanVideo 1.5: the tokens of a first image stand in both lanes of the text."""

from typing import Any

import torch

from nag import guide
from tests.builders import tiny_joint
from tests.nag.joint_by_hand import joint_attention_by_hand
from tests.nag.joint_families import (
    FAMILIES,
    GLYPHS,
    LENGTH,
    assert_agrees,
    assert_differs,
    glyphs,
    seeded,
    text,
)
from tests.nag.reference import mask

VIDEO = FAMILIES["HunyuanVideo 1.5"]


def test_a_video_from_an_image_is_guided_in_either_form_of_output() -> None:
    pipeline = tiny_joint.hunyuan_video15_pipeline()
    negative, guidance, _ = VIDEO.negative(rows=2)
    call: dict[str, Any] = {
        "hidden_states": seeded(9, 2, 9, 2, 4, 4),
        "timestep": torch.full((2,), 700.0),
        "encoder_hidden_states": text(2, 1),
        "encoder_attention_mask": mask(LENGTH, LENGTH, LENGTH - 3),
        "encoder_hidden_states_2": glyphs(2, 1),
        "encoder_attention_mask_2": mask(GLYPHS, 1, 3),
        "image_embeds": seeded(8, 2, 5, 8),
        "return_dict": False,
    }

    def predict(**changes: Any) -> torch.Tensor:
        with torch.no_grad(), pipeline.transformer.cache_context("pred_cond"):
            return pipeline.transformer(**{**call, **changes})[0]

    plain = predict()
    with joint_attention_by_hand(pipeline, guidance, None, VIDEO.rotate):
        by_hand = predict()
    with guide(pipeline, negative, **VIDEO.strengths()):
        guided = predict()
        assert torch.equal(predict(return_dict=True), guided)
        of_text_alone = predict(image_embeds=torch.zeros(2, 5, 8))
    assert_agrees(guided, by_hand)
    assert_differs(guided, plain)
    assert_differs(guided, of_text_alone)
