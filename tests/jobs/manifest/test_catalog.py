import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.errors import RefusedError, UnknownModelError
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.types import LoraIdentity, ModelIdentity
from pipelines.catalog.files.gguf_file import GgufWeights
from pipelines.catalog.keys.second_stage import SecondStage
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.catalog.model_loras import LoraWeights
from pipelines.catalog.upsampler_files import UpsamplerWeights
from pipelines.errors import ModelConfigError, ModelFolderError, ModelNotFoundError
from pipelines.request import VideoShape

MODEL_YAML = """
family: wan
source: {source}
dtype: bfloat16
max_sequence_length: 77
grid: {{num_frames: 4, height: 16, width: 16}}
scheduler: {{name: UniPCMultistepScheduler, flow_shift: 3.0}}
sampling:
  {{num_inference_steps: 8, guidance_scale: 1.0, num_frames: 17, height: 64, width: 64, fps: 8}}
"""


TWO_STAGES = """
family: ltx
pipeline: LTXConditionPipeline
source: ./weights
grid: {num_frames: 8, height: 64, width: 64}
sampling: {num_inference_steps: 8, guidance_scale: 1, num_frames: 9, height: 64, width: 64, fps: 8}
second_stage: {source: ./secret/up, timesteps: [909, 421], adain_factor: 1}
"""


class FakeInspector:
    """An inspector that finds the weights of every model but `missing`."""

    def __init__(self, missing: str = "") -> None:
        self.missing = missing
        self.asked: list[str] = []

    def __call__(self, config: ModelConfig, config_path: Path) -> ModelWeights:
        self.asked.append(config.name)
        if config.name == self.missing:
            raise ModelNotFoundError(f"{config_path}: no weights")
        return ModelWeights(folder=Path("/machine/cache/my-weights"), revision="r1")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name, source in (("mine", "./weights"), ("hub", "Org/Model"), ("packed", "package:packed")):
        (tmp_path / f"{name}.yaml").write_text(MODEL_YAML.format(source=source))
    return tmp_path


def test_the_catalog_names_packaged_and_own_models(models: Path) -> None:
    names = ModelCatalog(models, FakeInspector()).names()
    assert {"mine", "hub", "packed", "shapes-wan"} <= set(names)
    assert names == sorted(names)


def test_an_identity_has_everything_that_decides_the_pixels(models: Path) -> None:
    entry = ModelCatalog(models, FakeInspector()).get("hub")
    assert entry.identity == ModelIdentity(
        name="hub",
        source="Org/Model",
        revision="r1",
        dtype="bfloat16",
        scheduler="UniPCMultistepScheduler",
        vae_dtype="float32",
        max_sequence_length=77,
    )
    assert (entry.config.name, entry.weights.folder) == ("hub", Path("/machine/cache/my-weights"))


def test_an_identity_has_no_path_of_a_machine(models: Path) -> None:
    catalog = ModelCatalog(models, FakeInspector())
    assert catalog.get("mine").identity.source == "folder:my-weights"
    assert catalog.get("packed").identity.source == "package:packed"


def test_the_loras_of_a_model_are_part_of_its_identity(models: Path) -> None:
    path = models / "hub.yaml"
    first = "{name: a, source: Org/Style, weight: 2}"
    second = "{name: b, source: ./secret/speed, component: transformer}"
    path.write_text(f"{path.read_text()}loras: [{first}, {second}]\nfuse_loras: true\n")
    found = (LoraWeights(Path("/machine/cache/c0ffee/a.safetensors"), "c0ffee/sha256:00"),)
    found += (LoraWeights(Path("/machine/secret/speed/b.safetensors"), "sha256:11"),)
    entry = ModelCatalog(
        models, lambda _config, _path: ModelWeights(Path("/machine/w"), "r1", found)
    ).get("hub")
    assert entry.weights.loras == found
    assert entry.identity.fuse_loras
    assert entry.identity.loras == (
        LoraIdentity("Org/Style", "c0ffee/sha256:00", 2.0, "all"),
        LoraIdentity("folder:speed", "sha256:11", 1.0, "transformer"),
    )


def test_the_second_stage_of_a_model_is_part_of_its_identity(models: Path) -> None:
    (models / "two.yaml").write_text(TWO_STAGES)
    found = UpsamplerWeights(Path("/machine/secret/up/latent_upsampler"), "sha256:22")
    weights = ModelWeights(Path("/machine/w"), "r1", (), found)
    entry = ModelCatalog(models, lambda _config, _path: weights).get("two")
    assert entry.identity.second_stage == SecondStage(
        "folder:latent_upsampler", "sha256:22", timesteps=(909, 421), adain_factor=1.0
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[909, 421]", "909", "second_stage.timesteps must be a list of numbers, not 909"),
        ("[909, 421]", "[a]", "second_stage.timesteps must be a list of numbers, but 'a' is in it"),
        ("source: ./secret/up, ", "", "second_stage.source is missing"),
        ("adain_factor", "adain", "adain"),
    ],
)
def test_a_wrong_second_stage_is_refused_with_its_file(
    models: Path, old: str, new: str, message: str
) -> None:
    (models / "two.yaml").write_text(TWO_STAGES.replace(old, new))
    with pytest.raises(ModelConfigError, match=rf"two\.yaml: .*{re.escape(message)}"):
        ModelCatalog(models, FakeInspector()).get("two")


def test_the_acceleration_of_a_model_is_part_of_its_identity(models: Path) -> None:
    path = models / "hub.yaml"
    plain = ModelCatalog(models, FakeInspector()).get("hub").identity
    keys = "first_block_cache: 0.08\ncompile: true\nvae_tiling: true\n"
    of_vae = "vae_memory_format: channels_last_3d\nvae_compile: true\n"
    path.write_text(path.read_text() + keys + of_vae)
    accelerated = ModelCatalog(models, FakeInspector()).get("hub").identity
    assert accelerated == replace(
        plain,
        first_block_cache=0.08,
        compile=True,
        vae_tiling=True,
        vae_memory_format="channels_last_3d",
        vae_compile=True,
    )


def test_weights_of_fewer_bits_are_part_of_the_identity_and_their_place_is_not(
    models: Path,
) -> None:
    path = models / "hub.yaml"
    plain = ModelCatalog(models, FakeInspector()).get("hub").identity
    path.write_text(path.read_text().replace("device: cpu\n", "") + "offload: group\n")
    assert ModelCatalog(models, FakeInspector()).get("hub").identity == plain
    path.write_text(path.read_text() + "layerwise_casting: float8_e4m3fn\n")
    cast = ModelCatalog(models, FakeInspector()).get("hub").identity
    assert cast == replace(plain, layerwise_casting="float8_e4m3fn")
    path.write_text(
        path.read_text()
        .replace("offload: group", "offload: none")
        .replace("layerwise_casting: float8_e4m3fn", "quantization: int8_weight_only")
        .replace("dtype: float32", "dtype: bfloat16")
    )
    assert ModelCatalog(models, FakeInspector()).get("hub").identity == replace(
        plain, quantization="int8_weight_only", dtype="bfloat16"
    )


def test_a_gguf_file_is_part_of_the_identity_by_its_content(models: Path) -> None:
    plain = ModelCatalog(models, FakeInspector()).get("hub").identity
    file = GgufWeights("transformer", Path("/machine/a.gguf"), "local-0a", {})
    weights = ModelWeights(Path("/machine/w"), plain.revision, ggufs=(file,))
    found = ModelCatalog(models, lambda _config, _path: weights).get("hub").identity
    assert found == replace(plain, gguf=("transformer/local-0a",))
    assert "machine" not in repr(found)


def test_a_scheduler_that_is_not_named_is_the_saved_one(models: Path) -> None:
    config = models / "mine.yaml"
    config.write_text(config.read_text().replace("name: UniPCMultistepScheduler, ", ""))
    assert ModelCatalog(models, FakeInspector()).get("mine").identity.scheduler == "saved"


def test_the_geometry_of_a_model_is_read_once_and_only_when_needed(
    tmp_path: Path,
) -> None:
    entry = ModelCatalog().get("shapes-wan")
    assert (entry.geometry.num_heads, entry.geometry.num_tokens(VideoShape(17, 64, 64))) == (4, 80)
    assert entry.geometry is entry.geometry
    (tmp_path / "mine.yaml").write_text(MODEL_YAML.format(source="./weights"))
    without_folder = ModelCatalog(tmp_path, FakeInspector()).get("mine")
    with pytest.raises(ModelFolderError, match=r"model_index\.json is missing"):
        _ = without_folder.geometry


def test_a_geometry_survives_pickling() -> None:
    geometry = ModelCatalog().get("shapes-ltx").geometry
    assert pickle.loads(pickle.dumps(geometry)) == geometry


def test_a_model_is_inspected_once_and_only_when_needed(models: Path) -> None:
    inspect = FakeInspector()
    catalog = ModelCatalog(models, inspect)
    assert inspect.asked == []
    assert catalog.get("mine") is catalog.get("mine")
    assert inspect.asked == ["mine"]


def test_an_unknown_model_is_refused_with_the_nearest(models: Path) -> None:
    with pytest.raises(UnknownModelError) as caught:
        ModelCatalog(models, FakeInspector()).get("shape-wan")
    assert (
        str(caught.value)
        == "unknown model 'shape-wan'; did you mean 'shapes-wan'? (nagfarm models lists them)"
    )


def test_a_broken_model_config_is_refused(models: Path) -> None:
    (models / "mine.yaml").write_text("family: sora\n")
    with pytest.raises(ModelConfigError, match=r"mine\.yaml"):
        ModelCatalog(models, FakeInspector()).get("mine")


def test_missing_weights_are_an_error_at_the_manifests_line(models: Path) -> None:
    path = models / "run.jsonl"
    path.write_text('\n{"prompt": "a", "model": "mine"}\n')
    manifest = open_manifest(path, ModelCatalog(models, FakeInspector(missing="mine")))
    with pytest.raises(RefusedError, match=r"run\.jsonl:2: .*mine\.yaml: no weights"):
        list(manifest.specs())


def test_the_catalog_loads_without_torch() -> None:
    program = (
        "import sys, jobs.manifest.model_catalog\n"
        "print(sorted({'torch', 'ray', 'boto3', 'diffusers', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
