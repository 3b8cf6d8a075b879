import re
from dataclasses import MISSING, astuple, fields, is_dataclass, replace
from typing import Any, get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jobs.clip_id import LATER_FIELDS
from jobs.clip_id import clip_id as clip_id_by_tokens
from jobs.types import ClipSpec, LoraIdentity, ModelIdentity
from nag.params import NagParams, NasaParams, VsfParams
from pipelines.catalog.keys.ltx2_guidance import Ltx2Guidance
from pipelines.catalog.keys.second_stage import SecondStage
from pipelines.clip_inputs import InputFile, InputFiles
from pipelines.request import (
    CFG_METHODS,
    GenerationRequest,
    GuidanceMethod,
    SamplingParams,
    VideoShape,
)
from pipelines.texts import RequestTokens, Tokens

LORA = LoraIdentity("Org/Style", "c0ffee/sha256:00", 1.0, "all")
MODEL = ModelIdentity("tiny", "package:tiny", "r1", "float32", "UniPCMultistepScheduler")
REQUEST = GenerationRequest(
    prompt="a red circle",
    negative_prompt="blue",
    shape=VideoShape(17, 64, 96),
    fps=8.0,
    sampling=SamplingParams(num_inference_steps=20, guidance_scale=2.0, flow_shift=3.0, seed=7),
    nag=NagParams(nag_scale=9.0, nag_tau=2.5, nag_alpha=0.25, nag_start=0.1, nag_end=0.9),
    method="cfg+nag",
    vsf=VsfParams(vsf_scale=2.0, vsf_bias=0.3),
    nasa=NasaParams(nasa_scale=0.4),
)
STAGE = SecondStage("Org/Up", "c0ffee", sigmas=(0.9, 0.5))
UNGUIDED = replace(REQUEST.sampling, guidance_scale=1.0)
BY_METHOD: dict[GuidanceMethod, GenerationRequest] = {
    "cfg+nag": REQUEST,
    "cfg": replace(REQUEST, method="cfg"),
    "nag": replace(REQUEST, method="nag", sampling=UNGUIDED),
    "vsf": replace(REQUEST, method="vsf", sampling=UNGUIDED),
    "nasa": replace(REQUEST, method="nasa", sampling=UNGUIDED),
    "none": replace(REQUEST, method="none", sampling=UNGUIDED),
}
METHODS: tuple[GuidanceMethod, ...] = get_args(GuidanceMethod)
OTHER_CHOICES = {"cfg+nag": "cfg", "l1": "l2", "refuse": "truncate"}

texts = st.text(
    st.characters(min_codepoint=32, exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30
).filter(lambda text: text.strip())


def requests_with(method: GuidanceMethod) -> st.SearchStrategy[GenerationRequest]:
    return st.builds(
        GenerationRequest,
        prompt=texts,
        negative_prompt=texts | st.just(""),
        shape=st.builds(
            VideoShape,
            st.integers(1, 200),
            st.integers(1, 99).map(lambda n: 2 * n),
            st.integers(1, 99).map(lambda n: 2 * n),
        ),
        fps=st.floats(1, 240),
        sampling=st.builds(
            SamplingParams,
            num_inference_steps=st.integers(
                10, 1000
            ),  # so that every range of NAG below holds a step
            guidance_scale=st.floats(1, 100, exclude_min=True)
            if method in CFG_METHODS
            else st.just(1.0),
            flow_shift=st.none() | st.floats(0.1, 20),
            seed=st.integers(0, 2**63 - 1),
        ),
        nag=st.builds(
            NagParams,
            nag_scale=st.floats(1, 100),
            nag_tau=st.floats(0.1, 10),
            nag_alpha=st.floats(0, 1),
            nag_start=st.floats(0, 0.4),
            nag_end=st.floats(0.5, 1),
            nag_norm=st.sampled_from(["l1", "l2"]),
        ),
        method=st.just(method),
        vsf=st.builds(VsfParams, vsf_scale=st.floats(0, 10), vsf_bias=st.floats(0, 5)),
        nasa=st.builds(NasaParams, nasa_scale=st.floats(0, 10)),
        text=st.sampled_from(["refuse", "truncate"]),
    )


requests = st.sampled_from(METHODS).flatmap(requests_with)
models = st.builds(
    ModelIdentity,
    *[texts] * 6,
    max_sequence_length=st.integers(1, 4096),
    first_block_cache=st.none() | st.floats(0, 1, exclude_min=True),
    compile=st.booleans(),
    vae_tiling=st.booleans(),
    vae_memory_format=st.sampled_from(["contiguous_format", "channels_last_3d"]),
    vae_compile=st.booleans(),
    layerwise_casting=st.sampled_from(["", "float8_e4m3fn", "float8_e5m2"]),
    quantization=st.sampled_from(["", "int8_weight_only"]),
)


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in fields(value):
        entry = getattr(value, field.name)
        found |= (
            leaves(entry, f"{prefix}{field.name}.")
            if is_dataclass(entry)
            else {prefix + field.name: entry}
        )
    return found


def replaced(value: Any, path: str, leaf: Any) -> Any:
    name, _, rest = path.partition(".")
    return replace(value, **{name: replaced(getattr(value, name), rest, leaf) if rest else leaf})


def changed(leaf: Any) -> Any:
    """Return another value that the checks of the field allow."""
    match leaf:
        case str() if leaf in OTHER_CHOICES:
            return OTHER_CHOICES[leaf]
        case str():
            return leaf + "x"
        case bool():
            return not leaf
        case int():
            return leaf + 2
        case tuple():
            return (*leaf, LORA)
        case None:
            return 0.08
        case _:
            return leaf + 0.05


def clip_id(model: ModelIdentity, request: GenerationRequest) -> str:
    """Return the id of a clip whose tokenizer makes other tokens of every other text."""
    tokens = RequestTokens.of(request, lambda text: Tokens(len(text), text))
    return clip_id_by_tokens(model, request, tokens)


def effects(request: GenerationRequest) -> tuple[object, ...]:
    """Return all that the model gets of a request: its texts, and the guidance of each step."""
    num_steps, params = request.sampling.num_inference_steps, request.attention_params
    of_step = [
        repr(replace(params, nag_start=0, nag_end=1) if isinstance(params, NagParams) else params)
        if params and params.is_active_at(step, num_steps)
        else None
        for step in range(num_steps)
    ]
    negative_prompt = request.negative_prompt if any(of_step) else None
    texts = request.prompt, negative_prompt, request.unconditional_prompt
    return texts, of_step, request.shape, request.fps, astuple(request.sampling)


def test_an_id_is_32_hex_digits_and_never_changes() -> None:
    assert clip_id(MODEL, REQUEST) == "9688c95e75fdd8a46eb09d76078cdeb0"


def test_an_id_made_before_a_field_was_added_is_unchanged() -> None:
    """Compare with an id that was computed when `ModelIdentity` ended in `fuse_loras`."""
    loras = (LORA, replace(LORA, weight=-0.5, component="transformer"))
    model = ModelIdentity(
        "a", "Org/A", "c0ffee", "bfloat16", "saved", "bfloat16", 128, 0.05, 0.025, loras, True
    )
    assert clip_id(model, REQUEST) == "adedf0332020a38a67ad7991101bdf02"


def test_a_field_that_was_added_later_has_a_default() -> None:
    names = LATER_FIELDS[ModelIdentity]
    later = [field for field in fields(ModelIdentity) if field.name in names]
    assert len(later) == len(names)
    assert all(field.default is not MISSING for field in later)


CAT = InputFile("0" * 64, "cat.png")
OTHER_VALUES = {
    "sampling.guidance_scale_2": 2.0,
    "sampling.strength": 1.0,
    "inputs.reference_images": (CAT,),
    **{f"inputs.{name}": CAT for name in ("image", "last_image", "video")},
}


# The LoRAs are a part of the identity of the model. A mask needs a video.
NOT_ALONE = {"text", "loras", "inputs.fit", "inputs.mask"}


@pytest.mark.parametrize("path", sorted(leaves(REQUEST).keys() - NOT_ALONE))
def test_every_field_of_the_request_that_has_an_effect_changes_the_id(path: str) -> None:
    method = path.partition(".")[0]
    request = BY_METHOD[method if method in ("vsf", "nasa") else "cfg+nag"]
    other = replaced(request, path, OTHER_VALUES.get(path) or changed(leaves(request)[path]))
    assert clip_id(MODEL, other) != clip_id(MODEL, request)


def test_an_input_counts_by_its_content_and_its_fit_and_never_by_its_name() -> None:
    def of(**inputs: Any) -> str:
        return clip_id(MODEL, replace(REQUEST, inputs=InputFiles(**inputs)))

    assert of(image=InputFile(CAT.sha256, "dog.png")) == of(image=CAT)
    assert of(image=InputFile("1" * 64, CAT.name)) != of(image=CAT)
    assert of(image=CAT, fit="contain") != of(image=CAT)
    assert of(video=CAT, mask=CAT) != of(video=CAT)
    assert of(fit="contain") == of() == clip_id(MODEL, REQUEST)


PARAMS = ("nag.nag_scale", "nag.nag_norm", "vsf.vsf_scale", "vsf.vsf_bias", "nasa.nasa_scale")
UNUSED: dict[GuidanceMethod, set[str]] = {
    "none": {"negative_prompt", *PARAMS},
    "cfg": {*PARAMS},
    "nag": {"vsf.vsf_scale", "vsf.vsf_bias", "nasa.nasa_scale"},
    "vsf": {"nag.nag_scale", "nag.nag_norm", "nasa.nasa_scale"},
    "nasa": {"nag.nag_scale", "nag.nag_norm", "vsf.vsf_scale", "vsf.vsf_bias"},
}


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, path) for method, paths in UNUSED.items() for path in sorted({"text", *paths})],
)
def test_a_value_without_an_effect_is_not_in_the_id(method: GuidanceMethod, path: str) -> None:
    request = BY_METHOD[method]
    other = replaced(request, path, changed(leaves(request)[path]))
    assert clip_id(MODEL, other) == clip_id(MODEL, request)


WITHOUT_NAG = ({"nag": NagParams(nag_scale=1)}, {"nag": NagParams(nag_alpha=0)})


@pytest.mark.parametrize("change", [*WITHOUT_NAG, {"negative_prompt": " \n"}])
def test_guidance_without_an_effect_makes_the_clip_of_the_method_without_it(
    change: dict[str, Any],
) -> None:
    pairs: tuple[tuple[GuidanceMethod, GuidanceMethod], ...]
    pairs = (("nag", "none"), ("cfg+nag", "cfg"))
    for with_nag, without in pairs:
        request = replace(BY_METHOD[with_nag], **change)
        other = replace(BY_METHOD[without], **change)
        assert clip_id(MODEL, request) == clip_id(MODEL, other)
        assert clip_id(MODEL, request) != clip_id(MODEL, BY_METHOD[with_nag])


def test_two_ranges_that_hold_the_same_steps_are_the_same_clip() -> None:
    four = replace(REQUEST, sampling=replace(REQUEST.sampling, num_inference_steps=4))
    ids = [
        clip_id(MODEL, replace(four, nag=NagParams(nag_start=start, nag_end=end)))
        for start, end in ((0.0, 0.3), (0.0, 0.5), (0.0, 0.51), (0.2, 0.5), (0.0, 1.0))
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


def test_with_two_stages_a_range_counts_as_it_is_written() -> None:
    """Each stage has steps of its own, which may tell two ranges apart."""
    four = replace(REQUEST, sampling=replace(REQUEST.sampling, num_inference_steps=4))
    model = replace(MODEL, second_stage=STAGE)
    one, other = (replace(four, nag=NagParams(nag_end=end)) for end in (0.3, 0.5))
    assert clip_id(model, one) != clip_id(model, other)
    assert clip_id(MODEL, one) == clip_id(MODEL, other)


def test_every_field_of_a_second_stage_changes_the_id() -> None:
    model = replace(MODEL, second_stage=STAGE)
    others = [
        replace(model, second_stage=replace(STAGE, **change))
        for change in (
            {"source": "Org/Other"}, {"revision": "abc"}, {"subfolder": ""},
            {"sigmas": (0.9, 0.6)}, {"guidance_scale": 1.0}, {"adain_factor": 0.5},
            {"tone_map_compression_ratio": 0.6}, {"sigmas": (), "timesteps": (900, 500)},
            {"sigmas": (), "num_inference_steps": 10, "denoise_strength": 0.4},
            {"sigmas": (), "num_inference_steps": 5, "denoise_strength": 0.4},
            {"sigmas": (), "num_inference_steps": 5, "denoise_strength": 0.8},
        )
    ]  # fmt: skip
    ids = {clip_id(one, REQUEST) for one in (MODEL, model, *others)}
    assert len(ids) == len(others) + 2


def test_texts_of_equal_tokens_are_the_same_clip() -> None:
    def by_words(request: GenerationRequest) -> str:
        tokens = RequestTokens.of(request, lambda text: Tokens(len(text), " ".join(text.split())))
        return clip_id_by_tokens(MODEL, request, tokens)

    doubled = replace(REQUEST, prompt="a  red circle ", negative_prompt=" blue")
    assert by_words(doubled) == by_words(REQUEST)
    assert by_words(replace(REQUEST, prompt="a redcircle")) != by_words(REQUEST)


@pytest.mark.parametrize("path", leaves(MODEL))
def test_every_field_of_the_model_changes_the_id(path: str) -> None:
    other = replaced(MODEL, path, changed(leaves(MODEL)[path]))
    assert clip_id(other, REQUEST) != clip_id(MODEL, REQUEST)


def test_every_field_of_ltx2s_guidance_changes_the_id() -> None:
    full = Ltx2Guidance(1.0, 3.0, (28,), 0.5, 2.0, 7.0, 0.25)
    others = [
        replaced(full, path, (29,) if isinstance(leaf, tuple) else leaf / 2 + 0.5)
        for path, leaf in leaves(full).items()
        if leaf != 1
    ]
    others += [full, replace(full, stg_scale=0.3)]
    ids = {clip_id(replace(MODEL, ltx2_guidance=one), REQUEST) for one in (None, *others)}
    assert len(ids) == len(others) + 1 == len(leaves(full)) + 2


@pytest.mark.parametrize("path", leaves(LORA))
def test_every_field_of_a_lora_changes_the_id(path: str) -> None:
    one, other = (
        replace(MODEL, loras=(lora,))
        for lora in (LORA, replaced(LORA, path, changed(leaves(LORA)[path])))
    )
    assert clip_id(one, REQUEST) != clip_id(other, REQUEST)


def test_the_order_of_loras_counts_and_how_a_whole_weight_is_written_does_not() -> None:
    second = replace(LORA, source="Org/Speed", weight=2.0)
    ids = [
        clip_id(replace(MODEL, loras=loras), REQUEST) for loras in ((LORA, second), (second, LORA))
    ]
    assert ids[0] != ids[1]
    assert clip_id(replace(MODEL, loras=(LORA, replace(second, weight=2))), REQUEST) == ids[0]


def test_a_null_flow_shift_is_another_clip_than_any_number() -> None:
    assert clip_id(MODEL, replaced(REQUEST, "sampling.flow_shift", None)) != clip_id(MODEL, REQUEST)


@pytest.mark.parametrize(
    "path",
    ["fps", "sampling.guidance_scale", "sampling.flow_shift", "nag.nag_scale", "vsf.vsf_bias"],
)
def test_an_int_in_a_float_field_is_the_same_clip(path: str) -> None:
    assert clip_id(MODEL, replaced(REQUEST, path, 4)) == clip_id(
        MODEL, replaced(REQUEST, path, 4.0)
    )


def test_minus_zero_and_zero_are_the_same_clip() -> None:
    zero, minus_zero = (replaced(REQUEST, "nag.nag_start", value) for value in (0.0, -0.0))
    assert clip_id(MODEL, zero) == clip_id(MODEL, minus_zero)


def test_text_cannot_move_from_one_field_to_the_next() -> None:
    one = replace(REQUEST, prompt='a","negative_prompt":"b', negative_prompt="")
    other = replace(REQUEST, prompt="a", negative_prompt="b")
    assert clip_id(MODEL, one) != clip_id(MODEL, other)


def test_the_name_of_a_clip_is_not_in_its_id() -> None:
    assert not {"name", "clip_id"} & leaves(REQUEST).keys()
    one, other = (ClipSpec(clip_id(MODEL, REQUEST), name, MODEL, REQUEST) for name in ("a", "b"))
    assert one.clip_id == other.clip_id


@given(models, requests)
def test_equal_values_give_equal_ids(model: ModelIdentity, request: GenerationRequest) -> None:
    found = clip_id(model, request)
    assert re.fullmatch(r"[0-9a-f]{32}", found)
    assert (
        clip_id(
            replace(model), replace(request, shape=replace(request.shape), nag=replace(request.nag))
        )
        == found
    )


@given(models, requests, models, requests)
def test_unequal_models_or_effects_give_unequal_ids(
    model: ModelIdentity,
    request: GenerationRequest,
    other_model: ModelIdentity,
    other_request: GenerationRequest,
) -> None:
    assume((model, effects(request)) != (other_model, effects(other_request)))
    assert clip_id(model, request) != clip_id(other_model, other_request)


@given(requests, st.sampled_from(sorted(leaves(REQUEST))), st.data())
def test_one_field_alone_makes_another_clip_exactly_if_it_has_an_effect(
    request: GenerationRequest, path: str, data: st.DataObject
) -> None:
    methods: list[GuidanceMethod] = [
        method for method in METHODS if (method in CFG_METHODS) == request.has_cfg
    ]  # its guidance_scale fits
    leaf = leaves(data.draw(st.sampled_from(methods).flatmap(requests_with)))[path]
    other = replaced(request, path, leaf)
    is_equal = clip_id(MODEL, other) == clip_id(MODEL, request)
    assert is_equal == (effects(other) == effects(request))
