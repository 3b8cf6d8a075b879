"""A catalog of models without YAMLs and weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jobs.errors import UnknownModelError
from jobs.text import unknown
from jobs.types import LoraIdentity, ModelIdentity
from pipelines.catalog.folder_facts import FolderFacts
from pipelines.catalog.keys.lora_config import LoraConfig
from pipelines.catalog.keys.pipeline_classes import PipelineClass
from pipelines.catalog.keys.scheduler_config import SchedulerConfig
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.catalog.tokenizer import Tokenizer
from pipelines.clip_inputs import INPUT_NAMES
from pipelines.context_parallel.geometry import ModelGeometry
from pipelines.errors import ModelNotFoundError
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import GuidanceMethod
from pipelines.texts import Tokens


@dataclass(frozen=True)
class FakeTokenizer:
    """A token for each word."""

    max_tokens: int

    def read(self, texts: Sequence[str]) -> list[Tokens]:
        return [self.tokens(text) for text in texts]

    def tokens(self, text: str) -> Tokens:
        words = text.split()
        is_cut = len(words) > self.max_tokens
        return Tokens(len(words), " ".join(words[: self.max_tokens]) if is_cut else text)


ABSENT = ("absent", "hollow")
LORAS = (
    LoraConfig("fast", "Org/Fast"),
    LoraConfig("style", "Org/Style", weight=0.6),
    LoraConfig("detail", "Org/Detail", by_default=False),
)


MOVING = PipelineClass(
    "Moving",
    "wan",
    "wan.WanModel",
    frozenset({"Moving"}),
    {},
    required_inputs=frozenset({"image"}),
    optional_inputs=frozenset({"last_image"}),
)
EDITED = replace(
    MOVING, name="Edited", required_inputs=frozenset(), optional_inputs=frozenset(INPUT_NAMES)
)


@dataclass(frozen=True)
class MovingConfig(ModelConfig):
    """A model that begins with an image."""

    @property
    def pipeline_class(self) -> PipelineClass:
        return MOVING


@dataclass(frozen=True)
class EditedConfig(ModelConfig):
    """A model that takes every input and needs none."""

    @property
    def pipeline_class(self) -> PipelineClass:
        return EDITED


ONE_TRANSFORMER = FolderFacts(
    has_two_transformers=False,
    has_image_encoder=False,
    has_image_tokens=False,
    has_image_pairs=False,
    has_token_timesteps=False,
    input_channels=16,
    latent_channels=16,
    frames_per_latent=4,
    pixels_per_latent=8,
    latents_per_block=1,
)


@dataclass(frozen=True)
class FakeCatalogedModel:
    config: ModelConfig
    identity: ModelIdentity
    geometry: ModelGeometry
    loras: Mapping[str, LoraIdentity]
    tokenizer: Tokenizer
    facts: FolderFacts = ONE_TRANSFORMER


class FakeCatalog:
    """Models with 12 heads each; a clip of 64x64x17 has 5 x 4 x 4 = 80 tokens in `tiny`.

    `tiny` has a grid of 4k + 1 frames and sides that are multiples of 16. `coarse` has sides that
    are multiples of 32. `strong` uses classifier-free guidance by default. `grouped` renders on two
    devices by default. `styled` has three LoRAs, of which `detail` is off by default; `fused`
    fuses them. `moving` begins with an image and may have a last one; `edited` takes every input
    and needs none. The weights of `absent` and `hollow` are not on this machine.
    """

    def __init__(self) -> None:
        self.models = {
            "tiny": _model("tiny", 16),
            "coarse": _model("coarse", 32),
            "strong": _model("strong", 16, "cfg+nag", 5.0),
            "grouped": _model("grouped", 16, parallel=ParallelConfig(2)),
            "styled": _model("styled", 16, loras=LORAS),
            "moving": _model("moving", 16, config_class=MovingConfig),
            "edited": _model("edited", 16, config_class=EditedConfig),
            "fused": _model("fused", 16, loras=LORAS, fuse_loras=True),
        }

    def get(self, name: str, /) -> FakeCatalogedModel:
        if name in ABSENT:
            raise ModelNotFoundError(f"{name}: the model folder /weights does not exist")
        if name not in self.models:
            raise UnknownModelError(unknown("model", name, self.models))
        return self.models[name]


def _model(
    name: str,
    step: int,
    method: GuidanceMethod = "nag",
    guidance_scale: float = 1.0,
    parallel: ParallelConfig = ONE_DEVICE,
    loras: tuple[LoraConfig, ...] = (),
    fuse_loras: bool = False,
    config_class: type[ModelConfig] = ModelConfig,
) -> FakeCatalogedModel:
    config = config_class(
        name=name,
        family="wan",
        source=f"package:{name}",
        grid=ShapeGrid(num_frames=4, height=step, width=step),
        sampling=SamplingDefaults(
            num_inference_steps=8,
            guidance_scale=guidance_scale,
            num_frames=17,
            height=64,
            width=64,
            fps=8.0,
        ),
        scheduler=SchedulerConfig(name="UniPCMultistepScheduler", flow_shift=3.0),
        method=method,
        parallel=parallel,
        loras=loras,
        fuse_loras=fuse_loras,
    )
    identities = {
        lora.name: LoraIdentity(lora.source, f"r-{lora.name}", lora.weight, lora.component)
        for lora in loras
    }
    identity = ModelIdentity(
        name,
        config.source,
        "r1",
        "float32",
        "UniPCMultistepScheduler",
        loras=tuple(identities[lora.name] for lora in loras if lora.by_default),
        fuse_loras=fuse_loras,
    )
    geometry = ModelGeometry("wan", 2, 12, 8, 64, 512, 4, step, step)
    return FakeCatalogedModel(
        config, identity, geometry, identities, FakeTokenizer(config.max_sequence_length)
    )
