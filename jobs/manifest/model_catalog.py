"""The catalog of models: the configuration, weights and identity of each. Loads without torch.

A model is looked up once, when a manifest first names it, since the fingerprint of a folder of
weights takes time. A fault that is found then stands, too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from jobs.errors import UnknownModelError
from jobs.text import unknown
from jobs.types import LoraIdentity, ModelIdentity
from pipelines.catalog.lora_config import LoraConfig
from pipelines.catalog.model_config import ModelConfig, load_model_config
from pipelines.catalog.model_folder import ModelWeights, inspect_model
from pipelines.catalog.sources import model_paths, resolve_source
from pipelines.catalog.tokenizer import Tokenizer, load_tokenizer
from pipelines.context_parallel.geometry import ModelGeometry, read_geometry
from pipelines.errors import PipelineError

Inspect = Callable[[ModelConfig, Path], ModelWeights]


@dataclass(frozen=True)
class CatalogEntry:
    """One model.

    Args:
        identity: the model with the LoRAs that are on by default.
        weights: folder on this machine, which is not part of the identity.
        loras: every LoRA of the model's YAML, by name.
    """

    config: ModelConfig
    identity: ModelIdentity
    weights: ModelWeights
    loras: Mapping[str, LoraIdentity] = field(default_factory=dict[str, LoraIdentity])

    @property
    def geometry(self) -> ModelGeometry:
        """Return the sizes that decide how ranks can share a clip.

        They are read when they are first needed, which is only if a group renders a clip.

        Raises:
            ModelFolderError: the configs of the folder are missing or contradict each other.
        """
        return self._geometry

    @cached_property
    def _geometry(self) -> ModelGeometry:
        return read_geometry(self.weights.folder, self.config)

    @property
    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer, which is loaded when a manifest's first text is read.

        Raises:
            ModelFolderError: its files cannot be loaded.
        """
        if isinstance(self._tokenizer, PipelineError):
            raise self._tokenizer.with_traceback(None)
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> Tokenizer | PipelineError:
        try:
            return load_tokenizer(self.weights.folder, self.config)
        except PipelineError as error:
            return error


class ModelCatalog:
    """The models that come with nagfarm, and those in `models_folder`, which take precedence.

    Args:
        inspect: finds the weights of a model and their revision.
    """

    def __init__(self, models_folder: Path | None = None, inspect: Inspect = inspect_model) -> None:
        self._models_folder = models_folder
        self._inspect = inspect
        self._entries: dict[str, CatalogEntry | PipelineError] = {}

    @cached_property
    def _paths(self) -> dict[str, Path]:
        return model_paths(self._models_folder)

    def names(self) -> list[str]:
        """Return all models, sorted, also those without weights on this machine."""
        return sorted(self._paths)

    def get(self, name: str) -> CatalogEntry:
        """Return the configuration, weights and identity of one model.

        Raises:
            UnknownModelError: no model has this name.
            ModelConfigError: its YAML is wrong.
            ModelNotFoundError, ModelFolderError: its weights are missing or broken.
        """
        self._check_name(name)
        if name not in self._entries:
            try:
                self._entries[name] = self._load(name)
            except PipelineError as error:
                self._entries[name] = error
        entry = self._entries[name]
        if isinstance(entry, PipelineError):
            raise entry.with_traceback(None)
        return entry

    def _check_name(self, name: str) -> None:
        if name not in self._paths:
            raise UnknownModelError(
                f"{unknown('model', name, self.names())} (nagfarm models lists them)"
            )

    def config(self, name: str) -> ModelConfig:
        """Return the configuration of one model, which needs no weights on this machine."""
        return self.config_file(name)[0]

    def config_file(self, name: str) -> tuple[ModelConfig, Path]:
        """Return the configuration of one model, and its file.

        Raises:
            UnknownModelError: no model has this name.
            ModelConfigError: its YAML is wrong.
        """
        self._check_name(name)
        return load_model_config(self._paths[name]), self._paths[name]

    def _load(self, name: str) -> CatalogEntry:
        path = self._paths[name]
        config = load_model_config(path)
        weights = self._inspect(config, path)
        loras = {
            lora.name: LoraIdentity(
                _public_source(lora, path, found.path.parent),
                found.revision,
                lora.weight,
                lora.component,
            )
            for lora, found in zip(config.loras, weights.loras, strict=True)
        }
        identity = ModelIdentity(
            name=name,
            source=_public_source(config, path, weights.folder),
            revision=weights.revision,
            dtype=config.dtype,
            scheduler=config.scheduler.name or "saved",
            vae_dtype=config.vae_dtype,
            max_sequence_length=config.max_sequence_length,
            decode_timestep=config.decode_timestep,
            decode_noise_scale=config.decode_noise_scale,
            loras=tuple(loras[lora.name] for lora in config.loras if lora.by_default),
            fuse_loras=config.fuse_loras,
            first_block_cache=config.first_block_cache,
            compile=config.compile,
            vae_tiling=config.vae_tiling,
            vae_memory_format=config.vae_memory_format,
            vae_compile=config.vae_compile,
        )
        return CatalogEntry(config, identity, weights, loras)


def _public_source(config: ModelConfig | LoraConfig, config_path: Path, folder: Path) -> str:
    """Return the source of weights without a path of this machine."""
    is_local = isinstance(
        resolve_source(config.source, config_path), Path
    ) and not config.source.startswith("package:")
    return f"folder:{folder.name}" if is_local else config.source
