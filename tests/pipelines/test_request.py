import ast
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nag.errors import NagParameterError
from nag.params import GuidanceParams, NagParams, NasaParams, VsfParams
from pipelines.errors import RequestError
from pipelines.request import GenerationRequest, GuidanceMethod, SamplingParams, VideoShape

ROOT = Path(__file__).parents[2]
SAMPLING = SamplingParams(8, 1.0, None, 0)
REQUEST = GenerationRequest("a circle", "red", VideoShape(17, 64, 64), 8.0, SAMPLING, NagParams())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 64, 64), "num_frames must be between 1 and 10,000, not 0"),
        ((17, 63, 64), "height must be even"),
        ((17, 64, 2**40), "width must be between 1 and 8,192"),
        ((17, -64, 64), "height must be between"),
    ],
)
def test_an_impossible_shape_is_refused(values: tuple[int, int, int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        VideoShape(*values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 1.0, None, 0), "num_inference_steps must be between 1 and 1,000, not 0"),
        ((8, 0.5, None, 0), "guidance_scale must be at least 1"),
        ((8, float("nan"), None, 0), "guidance_scale must be at least 1"),
        ((8, 1.0, 0.0, 0), "flow_shift must be above 0"),
        ((8, 1.0, float("inf"), 0), "flow_shift must be above 0"),
        ((8, 1.0, None, -1), "seed must be between 0 and"),
        ((8, 1.0, None, 2**63), "seed must be between 0 and"),
    ],
)
def test_sampling_outside_its_range_is_refused(
    values: tuple[int, float, float | None, int], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        SamplingParams(*values)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "prompt is empty"),
        (" \n\t", "prompt is empty"),
        ("a\x00b", r"control character U\+0000 at position 2"),
        ("\x1b[2J", r"control character U\+001B at position 1"),
        ("ab\x85", r"control character U\+0085 at position 3"),
        ("\ud800", r"control character U\+D800"),
        ("x" * 20_001, "has 20,001 characters; at most 20,000"),
    ],
)
def test_an_unsafe_or_empty_prompt_is_refused(prompt: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        replace(REQUEST, prompt=prompt)


def test_a_prompt_with_any_letters_tabs_and_lines_is_accepted() -> None:
    assert replace(REQUEST, prompt="Ünïcode 雪 🎬\tand\nlines").prompt


@pytest.mark.parametrize("fps", [0.0, -1.0, 241.0, float("nan"), float("inf")])
def test_an_impossible_frame_rate_is_refused(fps: float) -> None:
    with pytest.raises(RequestError, match="fps must be between 1 and 240"):
        replace(REQUEST, fps=fps)


def request_of(method: GuidanceMethod, **changes: Any) -> GenerationRequest:
    guidance_scale = 3.0 if "cfg" in method else 1.0
    return replace(
        REQUEST, method=method, sampling=SamplingParams(8, guidance_scale, None, 0), **changes
    )


@pytest.mark.parametrize(
    ("method", "params", "unconditional_prompt"),
    [
        ("none", None, None),
        ("cfg", None, "red"),
        ("nag", NagParams(), None),
        ("vsf", VsfParams(), None),
        ("nasa", NasaParams(), None),
        ("cfg+nag", NagParams(), ""),
    ],
)
def test_the_method_decides_how_the_negative_prompt_is_used(
    method: GuidanceMethod, params: GuidanceParams | None, unconditional_prompt: str | None
) -> None:
    request = request_of(method)
    assert request.attention_params == params
    assert request.unconditional_prompt == unconditional_prompt
    assert request.has_cfg == (unconditional_prompt is not None)


@pytest.mark.parametrize("method", ["nag", "vsf", "nasa", "cfg+nag"])
@pytest.mark.parametrize("negative_prompt", ["", " \n"])
def test_attention_is_unguided_without_a_negative_prompt(
    method: GuidanceMethod, negative_prompt: str
) -> None:
    assert request_of(method, negative_prompt=negative_prompt).attention_params is None


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("nag", {"nag": NagParams(nag_scale=1)}),
        ("nag", {"nag": NagParams(nag_alpha=0)}),
        ("vsf", {"vsf": VsfParams(vsf_scale=0)}),
        ("nasa", {"nasa": NasaParams(nasa_scale=0)}),
    ],
)
def test_attention_is_unguided_without_strength(
    method: GuidanceMethod, changes: dict[str, Any]
) -> None:
    assert request_of(method, **changes).attention_params is None


def test_classifier_free_guidance_uses_the_negative_prompt_if_nag_is_off() -> None:
    assert request_of("cfg+nag", nag=NagParams(nag_scale=1)).unconditional_prompt == "red"


@pytest.mark.parametrize(
    ("method", "guidance_scale", "message"),
    [
        (
            "cfg",
            1.0,
            "guidance_scale must be above 1 for the method cfg, not 1.*: raise it, or use a method",
        ),
        ("cfg+nag", 1.0, "guidance_scale must be above 1 for the method cfg.nag"),
        (
            "nag",
            5.0,
            "guidance_scale is 5, but .*: use method cfg.nag, or leave guidance_scale out",
        ),
        (
            "none",
            1.5,
            "guidance_scale is 1.5, but .*: use method cfg or cfg.nag, or leave guidance_scale out",
        ),
        ("vsf", 2.0, "the method vsf runs no classifier-free guidance"),
        ("nasa", 2.0, "the method nasa runs no classifier-free guidance"),
        ("apg", 1.0, "method must be one of none, cfg, nag, vsf, nasa, cfg.nag, not 'apg'"),
    ],
)
def test_a_method_that_contradicts_the_guidance_scale_is_refused(
    method: GuidanceMethod, guidance_scale: float, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        replace(REQUEST, method=method, sampling=SamplingParams(8, guidance_scale, None, 0))


def test_a_step_range_that_holds_no_step_is_refused() -> None:
    with pytest.raises(RequestError, match="hold none of the 8 steps"):
        replace(REQUEST, nag=NagParams(nag_start=0.9))
    assert replace(REQUEST, nag=NagParams(nag_start=0.9), negative_prompt="")
    assert request_of("vsf", nag=NagParams(nag_start=0.9))


def test_every_refused_request_names_the_fields_at_fault() -> None:
    """A manifest cites its line by these names, so a raise without one loses the line."""
    raises = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in ("nag", "pipelines", "jobs")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "RequestError"
    ]
    assert raises == []


@pytest.mark.parametrize("error_class", [RequestError, NagParameterError])
def test_the_fields_at_fault_survive_pickling(
    error_class: type[RequestError] | type[NagParameterError],
) -> None:
    error = pickle.loads(pickle.dumps(error_class.of("too long", "prompt", "seed")))
    assert (type(error), str(error), error.fields) == (error_class, "too long", ("prompt", "seed"))


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({"nag_scale": 0.5}, ("nag_scale",)),
        ({"nag_tau": 0.0}, ("nag_tau",)),
        ({"nag_alpha": 2.0}, ("nag_alpha",)),
        ({"nag_start": 0.5, "nag_end": 0.2}, ("nag_start", "nag_end")),
        ({"nag_end": float("nan")}, ("nag_end",)),
        ({"nag_norm": "l3"}, ("nag_norm",)),
    ],
)
def test_a_refused_parameter_of_nag_names_the_fields_at_fault(
    values: dict[str, Any], fields: tuple[str, ...]
) -> None:
    with pytest.raises(NagParameterError) as caught:
        NagParams(**values)
    assert caught.value.fields == fields
