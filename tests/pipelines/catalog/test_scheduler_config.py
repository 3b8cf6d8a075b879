"""`scheduler` in a model's YAML: lists of noise levels, and the requests that fit them."""

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.clip_id import clip_id
from pipelines.catalog.clip_rules import check_request
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_yaml import load_model_config
from pipelines.errors import ModelConfigError, RequestError
from pipelines.request import SamplingParams
from pipelines.texts import RequestTokens, Tokens
from tests.builders.accelerated import NAG
from tests.builders.specs import MODEL

TOKENS = RequestTokens(Tokens(2, "0"), None, None)
YAML = """\
family: {family}
source: ./weights
grid: {{num_frames: 8, height: 32, width: 32}}
sampling:
  {{num_inference_steps: 3, guidance_scale: 1.0, num_frames: 9, height: 32, width: 32, fps: 8}}
scheduler: {{{scheduler}}}
"""


def read(folder: Path, scheduler: str, family: str = "wan") -> ModelConfig:
    path = folder / "mine.yaml"
    path.write_text(YAML.format(scheduler=scheduler, family=family))
    return load_model_config(path)


@pytest.mark.parametrize(
    "scheduler",
    ["timesteps: [1000, 757, 522]", "sigmas: [1.0, 0.757, 0.522]", "sigmas: [1, 0.757, 0.522]"],
)
def test_noise_levels_are_listed_as_sigmas_or_as_timesteps(tmp_path: Path, scheduler: str) -> None:
    config = read(tmp_path, scheduler)
    assert config.scheduler.levels == (1.0, 0.757, 0.522)
    assert hash(config.scheduler)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ("timesteps: [1000, 757, 757]", "scheduler.timesteps must fall .*757 follows 757"),
        ("sigmas: [0.5, 0.6, 0.1]", "scheduler.sigmas must fall .*0.6 follows 0.5"),
        ("timesteps: [1001, 757, 522]", "scheduler.timesteps must be above 0 and at most 1000"),
        ("sigmas: [1, 0.5, 0]", "scheduler.sigmas must be above 0 .*which is not listed"),
        ("sigmas: [.nan, 0.5, 0.1]", "scheduler.sigmas must be above 0"),
        ("sigmas: [1, a, 0.1]", "scheduler.sigmas must be a list of numbers, but 'a'"),
        ("timesteps: 1000", "scheduler.timesteps must be a list of numbers, not 1000"),
        ("timesteps: [1000, 757]", "num_inference_steps must be 2, .*scheduler.timesteps.* not 3"),
        ("sigmas: [1, .5, .1], timesteps: [3, 2, 1]", "scheduler.sigmas or scheduler.timesteps"),
        ("sigmas: [1, .5, .1], flow_shift: 3", "leave scheduler.flow_shift out"),
        ("flow_shift: 0", "scheduler.flow_shift must be above 0"),
        ("stochastic_sampling: true", "stochastic_sampling needs scheduler.name"),
        ("name: UniPCMultistepScheduler, stochastic_sampling: true", "not UniPCMultistepScheduler"),
        ("name: LCMScheduler", "LCMScheduler"),
    ],
)
def test_a_wrong_scheduler_is_refused_under_its_key(
    tmp_path: Path, scheduler: str, expected: str
) -> None:
    with pytest.raises(ModelConfigError, match=expected):
        read(tmp_path, scheduler)


def test_dpm_for_ltx_needs_listed_noise_levels(tmp_path: Path) -> None:
    name = "name: DPMSolverMultistepScheduler"
    with pytest.raises(ModelConfigError, match="list them in scheduler.sigmas"):
        read(tmp_path, name, "ltx")
    assert read(tmp_path, f"{name}, sigmas: [1, 0.5, 0.1]", "ltx").scheduler.levels


def test_a_request_must_have_the_listed_number_of_steps_and_no_shift(tmp_path: Path) -> None:
    config = read(tmp_path, "timesteps: [1000, 757, 522]")
    fitting = replace(NAG, sampling=SamplingParams(3, 1.0, None, 0))
    check_request(config, fitting)
    with pytest.raises(
        RequestError, match=r"must be 3 for mine, .*scheduler.timesteps, not 8"
    ) as found:
        check_request(config, NAG)
    assert found.value.fields == ("num_inference_steps",)
    with pytest.raises(RequestError, match="leave flow_shift out") as found:
        check_request(config, replace(fitting, sampling=SamplingParams(3, 1.0, 5.0, 0)))
    assert found.value.fields == ("flow_shift",)


def test_listed_noise_levels_and_random_steps_are_part_of_a_clips_id() -> None:
    models = [
        MODEL,
        replace(MODEL, sigmas=(1.0, 0.5)),
        replace(MODEL, sigmas=(1.0, 0.6)),
        replace(MODEL, stochastic_sampling=True),
        replace(MODEL, stochastic_sampling=False),
    ]
    assert len({clip_id(model, NAG, TOKENS) for model in models}) == len(models)
