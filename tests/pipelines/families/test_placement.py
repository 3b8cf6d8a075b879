"""The text encoder in the host's memory: where it is when, and equal clips."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nag.params import NagParams
from pipelines.catalog.memory_config import check_offload
from pipelines.errors import ModelConfigError
from pipelines.families.ltx2 import LTX2Model
from pipelines.families.placement import Placement, place
from pipelines.request import GenerationRequest, SamplingParams, VideoShape
from tests.builders import tiny, tiny_ltx2
from tests.builders.accelerated import denoise, tiny_model
from tests.pipelines.families.test_ltx2 import config_of

REQUEST = GenerationRequest(
    "a", "b", VideoShape(9, 32, 32), 8.0, SamplingParams(2, 1.0, None, 0), NagParams()
)


def test_an_offloaded_encoder_gives_the_same_clip_and_moves_once_for_each_text() -> None:
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
        assert moves == ["to cpu:0", "encode", "to cpu"] * 2  # prompt and negative prompt
        assert torch.equal(denoise(model, REQUEST), found)
    assert len(moves) == 6
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


def test_a_failed_encode_frees_the_device_too() -> None:
    pipeline = tiny.wan_pipeline()
    placement = Placement(pipeline, torch.device("cpu"), "text_encoder")
    with pytest.raises(ZeroDivisionError), placement.encoding():
        _ = 1 / (0 if pipeline.text_encoder is not None else 1)
    assert pipeline.text_encoder is None


def test_an_offload_that_changes_nothing_is_refused() -> None:
    with pytest.raises(ModelConfigError, match="needs a CUDA device, and the model has device"):
        check_offload("text_encoder", "cpu")
    with pytest.raises(ModelConfigError, match="needs a CUDA device, and this machine has none"):
        place(tiny.wan_pipeline(), torch.device("cpu"), "text_encoder")
