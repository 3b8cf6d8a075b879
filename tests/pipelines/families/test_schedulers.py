"""The schedulers of a model's YAML in real tiny pipelines: the steps that the transformer sees."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from pipelines.catalog.keys.scheduler_config import SchedulerConfig, SchedulerName
from pipelines.errors import RequestError
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.schedulers import ClipSchedulers
from pipelines.request import GenerationRequest
from tests.builders import tiny
from tests.builders.accelerated import NAG, denoise, tiny_model

# DPMSolverMultistepScheduler makes an array of a tensor, for which NumPy 2 warns.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
TIMESTEPS = (1000.0, 757.0, 522.5)
LISTED: dict[SchedulerName, SchedulerConfig] = {
    "UniPCMultistepScheduler": SchedulerConfig("UniPCMultistepScheduler", timesteps=TIMESTEPS),
    "FlowMatchEulerDiscreteScheduler": SchedulerConfig(
        "FlowMatchEulerDiscreteScheduler", timesteps=TIMESTEPS
    ),
    "DPMSolverMultistepScheduler": SchedulerConfig(
        "DPMSolverMultistepScheduler", sigmas=tuple(value / 1000 for value in TIMESTEPS)
    ),
    "FlowMatchLCMScheduler": SchedulerConfig("FlowMatchLCMScheduler", timesteps=TIMESTEPS),
}
COMPUTED: dict[str, SchedulerConfig] = {
    "DPM++": SchedulerConfig("DPMSolverMultistepScheduler"),
    "SDE-DPM++": SchedulerConfig("DPMSolverMultistepScheduler", stochastic_sampling=True),
    "LCM": SchedulerConfig("FlowMatchLCMScheduler"),
    "Euler": SchedulerConfig("FlowMatchEulerDiscreteScheduler", stochastic_sampling=True),
}
REQUEST = replace(NAG, sampling=replace(NAG.sampling, num_inference_steps=3, flow_shift=None))


@pytest.fixture(scope="module", params=["wan2.1", "ltx"])
def model(request: pytest.FixtureRequest) -> DiffusersModel:
    return tiny_model(request.param)


def use(model: DiffusersModel, config: SchedulerConfig) -> None:
    saved: Any = tiny.PIPELINES[model.config.name]().scheduler
    model._schedulers = ClipSchedulers(config, saved)


def seen_timesteps(model: DiffusersModel, request: GenerationRequest) -> list[float]:
    seen: list[float] = []

    def record(_module: Any, _arguments: Any, named: dict[str, Any]) -> None:
        seen.append(named["timestep"].flatten()[0].item())

    handle = model.pipeline.transformer.register_forward_pre_hook(record, with_kwargs=True)
    try:
        denoise(model, request)
    finally:
        handle.remove()
    return seen


def with_seed(seed: int) -> GenerationRequest:
    return replace(REQUEST, sampling=replace(REQUEST.sampling, seed=seed))


@pytest.mark.parametrize("name", LISTED)
def test_the_transformer_sees_the_listed_timesteps_as_they_are(
    model: DiffusersModel, name: SchedulerName
) -> None:
    use(model, LISTED[name])
    assert seen_timesteps(model, REQUEST) == list(TIMESTEPS)
    scheduler = model.pipeline.scheduler
    assert type(scheduler).__name__ == name
    found = scheduler.sigmas.tolist()
    assert found == pytest.approx([1.0, 0.757, 0.5225, 0.0], abs=1.1e-6)
    assert denoise(model, REQUEST).isfinite().all()


@pytest.mark.parametrize("name", COMPUTED)
def test_a_clip_of_each_scheduler_is_the_same_alone_and_after_another(
    model: DiffusersModel, name: str
) -> None:
    config = COMPUTED[name]
    if model.config.family == "ltx" and config.name == "DPMSolverMultistepScheduler":
        config = replace(config, timesteps=TIMESTEPS)
    use(model, config)
    alone = denoise(model, REQUEST)
    torch.manual_seed(123)  # a scheduler that draws from torch's own generator gives other clips
    other = denoise(model, with_seed(4))
    again = denoise(model, REQUEST)
    assert alone.isfinite().all()
    assert torch.equal(alone, again)
    assert not torch.equal(alone, other)


def test_the_noise_of_the_steps_follows_from_the_seed_and_is_not_the_latents_noise() -> None:
    model = tiny_model("wan2.1")
    use(model, COMPUTED["LCM"])
    model.pipeline.transformer.register_forward_hook(
        lambda _module, _arguments, output: (torch.zeros_like(output[0]),)
    )
    seen: list[torch.Tensor] = []
    model.pipeline.transformer.register_forward_pre_hook(
        lambda _module, _arguments, named: seen.append(named["hidden_states"].clone()),
        with_kwargs=True,
    )
    denoise(model, replace(REQUEST, method="none"))
    # Without a prediction a step keeps 1 - sigma of the latents and adds sigma of new noise.
    start, second = seen[0], seen[1]
    sigma = model.pipeline.scheduler.sigmas[1]
    noise = (second - (1 - sigma) * start) / sigma
    assert noise.std().item() == pytest.approx(1, abs=0.1)
    assert abs(torch.corrcoef(torch.stack([noise.flatten(), start.flatten()]))[0, 1]) < 0.1


def test_a_random_scheduler_makes_another_clip_than_its_fixed_form() -> None:
    model = tiny_model("wan2.1")
    clips: list[torch.Tensor] = []
    for config in (
        SchedulerConfig("FlowMatchEulerDiscreteScheduler", stochastic_sampling=False),
        COMPUTED["Euler"],
        COMPUTED["DPM++"],
        COMPUTED["SDE-DPM++"],
    ):
        use(model, config)
        clips.append(denoise(model, REQUEST))
    assert all(not torch.equal(one, other) for one, other in pairwise(clips))


def test_a_scheduler_refuses_another_number_of_steps_than_it_lists() -> None:
    model = tiny_model("wan2.1")
    use(model, LISTED["FlowMatchLCMScheduler"])
    sampling = replace(REQUEST.sampling, num_inference_steps=4)
    with pytest.raises(RequestError, match="lists 3 noise levels, not 4"):
        denoise(model, replace(REQUEST, sampling=sampling))


def test_a_shift_of_the_request_reaches_each_scheduler_of_wan() -> None:
    model = tiny_model("wan2.1")
    shifted = replace(REQUEST, sampling=replace(REQUEST.sampling, flow_shift=8.0))
    for config in (*COMPUTED.values(), SchedulerConfig("UniPCMultistepScheduler")):
        use(model, config)
        assert seen_timesteps(model, shifted)[1] > seen_timesteps(model, REQUEST)[1]
