"""The rules of a model for one clip: its size, its steps, its inputs. Loads without torch."""

from pipelines.catalog.keys.pipeline_classes import LTX
from pipelines.catalog.model_config import ModelConfig
from pipelines.clip_inputs import INPUT_NAMES
from pipelines.errors import RequestError
from pipelines.request import GenerationRequest


def check_request(config: ModelConfig, request: GenerationRequest) -> None:
    """Refuse a request that is off a model's grid, and name the nearest sizes that work.

    Raises:
        RequestError: a size is off the grid, the steps or `flow_shift` do not fit the
            scheduler, or an input is missing or not one of the model.
    """
    _check_inputs(config, request)
    config.scheduler.check_steps(config.name, request.sampling)
    _check_strength(config, request)
    _check_rescale(config, request)
    if not (request.audio or config.pipeline_class.has_audio):
        raise RequestError.of(f"{config.name} makes no sound: leave audio out", "audio", "model")
    if config.family in LTX and request.sampling.flow_shift is not None:
        raise RequestError.of(
            f"{config.name} shifts its schedule by the number of tokens: leave flow_shift out",
            "flow_shift",
        )
    shape = request.shape
    if (shape.num_frames - 1) % config.grid.num_frames:
        below = (shape.num_frames - 1) // config.grid.num_frames * config.grid.num_frames + 1
        raise RequestError.of(
            f"num_frames must be a multiple of {config.grid.num_frames} plus 1 for {config.name}: "
            f"{below} or {below + config.grid.num_frames}, not {shape.num_frames}",
            "num_frames",
        )
    for axis, size, step in (
        ("height", shape.height, config.grid.height),
        ("width", shape.width, config.grid.width),
    ):
        if size % step:
            below = size // step * step
            nearest = f"{below} or {below + step}" if below else f"{step}"
            raise RequestError.of(
                f"{axis} must be a multiple of {step} for {config.name}: {nearest}, not {size}",
                axis,
            )


def _check_strength(config: ModelConfig, request: GenerationRequest) -> None:
    strength, takes_one = request.sampling.strength, config.pipeline_class.takes_strength
    if takes_one and strength is None:
        raise RequestError.of(f"strength is missing: {config.name} needs one", "strength")
    if strength is not None and not takes_one:
        raise RequestError.of(
            f"{config.name} takes no strength, which is for video to video: leave it out",
            "strength",
        )


def _check_rescale(config: ModelConfig, request: GenerationRequest) -> None:
    if not request.sampling.guidance_rescale:
        return
    if not config.pipeline_class.takes_rescale:
        raise RequestError.of(
            f"{config.pipeline_class.name} of {config.name} has no guidance_rescale: leave it out",
            "guidance_rescale",
            "model",
        )
    if not (request.has_cfg or config.ltx2_guidance.num_passes):
        raise RequestError.of(
            f"guidance_rescale is {request.sampling.guidance_rescale:g}, but the method "
            f"{request.method} runs no classifier-free guidance that it could act on: leave it "
            "out, or use the method cfg or cfg+nag",
            "guidance_rescale",
            "method",
        )


def _check_inputs(config: ModelConfig, request: GenerationRequest) -> None:
    pipeline, given = config.pipeline_class, request.inputs.given()
    for name in INPUT_NAMES:
        if name in pipeline.required_inputs and name not in given:
            raise RequestError.of(f"{name} is missing: {config.name} begins with one", name)
        if name in given and name not in pipeline.required_inputs | pipeline.optional_inputs:
            raise RequestError.of(f"{config.name} takes no {name}: leave it out", name, "model")
