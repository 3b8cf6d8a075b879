"""A model's YAML sets the limits of the frame checks; a prompt may allow a clip beyond them."""

from pathlib import Path

import pytest

from jobs.clip_id import clip_id
from jobs.manifest.model_catalog import ModelCatalog
from jobs.types import UNREAD
from nag.params import NagParams
from pipelines.catalog.files.sources import model_paths
from pipelines.catalog.model_folder import ModelWeights
from pipelines.catalog.model_yaml import load_model_config
from pipelines.errors import ModelConfigError
from pipelines.frame_checks.limits import (
    BLACK_WORDS,
    FLAT_WORDS,
    FROZEN_WORDS,
    NOISE_WORDS,
    FrameLimits,
    asks_for,
)
from pipelines.request import GenerationRequest, SamplingParams, VideoShape

MODEL = """\
family: wan
source: ./weights
grid: {num_frames: 4, height: 16, width: 16}
sampling:
  {num_inference_steps: 8, guidance_scale: 1.0, num_frames: 17, height: 64, width: 64, fps: 8}
"""


def write(path: Path, limits: str) -> Path:
    path.write_text(f"{MODEL}frame_checks: {limits}\n")
    return path


def test_a_yaml_sets_limits_and_words_and_leaves_the_rest(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.yaml",
        "{black: 3, frozen: null, black_words: [coal, at night], flat_words: []}",
    )
    expected = FrameLimits(black=3.0, frozen=None, black_words=("coal", "at night"), flat_words=())
    assert load_model_config(path).frame_checks == expected


def test_a_yaml_without_limits_has_the_default_ones(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MODEL)
    assert load_model_config(path).frame_checks == FrameLimits()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            "{black: 0}",
            "frame_checks.black must be above 0 and at most 255, or null for no limit, not 0.0",
        ),
        ("{flat: 128}", "frame_checks.flat must be above 0 and at most 127.5"),
        ("{frozen: -1}", "frame_checks.frozen must be above 0"),
        ("{grain: .nan}", "frame_checks.grain must be above 0"),
        ("{flicker: 3}", "frame_checks.flicker must be above 0 and at most 2"),
        ("{saturation: 1.5}", "frame_checks.saturation must be above 0 and at most 1"),
        ("{spread: .inf}", "frame_checks.spread must be above 0, or null"),
        ("{noise_words: [snow, ' ']}", "frame_checks.noise_words holds an empty word"),
        ("{blakc: 3}", "blakc"),
        ("{black: dark}", "black"),
    ],
)
def test_a_limit_out_of_its_range_is_refused(tmp_path: Path, limits: str, message: str) -> None:
    with pytest.raises(ModelConfigError) as refused:
        load_model_config(write(tmp_path / "mine.yaml", limits))
    assert message in str(refused.value)


def test_limits_decide_no_id(tmp_path: Path) -> None:
    request = GenerationRequest(
        "a", "", VideoShape(17, 64, 64), 8.0, SamplingParams(8, 1.0, None, 0), NagParams()
    )
    found: set[str] = set()
    for text in ("{}", "{black: null, flat: 7, noise_words: [rice]}"):
        write(tmp_path / "mine.yaml", text)
        entry = ModelCatalog(tmp_path, lambda _config, _path: ModelWeights(tmp_path, "r1")).get(
            "mine"
        )
        found.add(clip_id(entry.identity, request, UNREAD))
    assert len(found) == 1


@pytest.mark.parametrize(
    "prompt", ["a Night train", "NIGHT", "by night, rain", "the night's end", "at\nnight"]
)
def test_a_whole_word_in_any_case_excuses_a_clip(prompt: str) -> None:
    assert asks_for(prompt, BLACK_WORDS)


@pytest.mark.parametrize(
    "prompt", ["a nightingale", "fortnight", "darkroom", "blackberry jam", "night_vision"]
)
def test_a_part_of_a_word_excuses_no_clip(prompt: str) -> None:
    assert not asks_for(prompt, BLACK_WORDS)


def test_an_excusing_word_may_be_a_phrase_and_hold_signs(tmp_path: Path) -> None:
    assert asks_for("a cross that does not move", FROZEN_WORDS)
    assert asks_for("shot at f/2 (bokeh)", ("(bokeh)",))
    assert not asks_for("shot at f22 bokeh", ("f.2",))


def test_an_empty_list_of_words_excuses_no_clip() -> None:
    assert not asks_for("a black night", ())


@pytest.mark.parametrize("prompt", ["nan", "nan unless exact", "unlit", "flat", "stuck", "garbled"])
def test_no_prompt_of_a_broken_clip_of_the_fake_model_excuses_it(prompt: str) -> None:
    assert not asks_for(prompt, (*BLACK_WORDS, *FLAT_WORDS, *FROZEN_WORDS, *NOISE_WORDS))


@pytest.mark.parametrize("name", list(model_paths()))
def test_the_packaged_models_switch_off_at_most_one_check(name: str) -> None:
    """The few-step benchmarks of the Shapes models must measure blurs that flicker like noise."""
    limits = load_model_config(model_paths()[name]).frame_checks
    off = {
        check
        for check in ("spread", "black", "flat", "frozen", "grain", "saturation")
        if not getattr(limits, check)
    }
    assert not off
    assert (limits.flicker is None) == name.startswith("shapes-")
