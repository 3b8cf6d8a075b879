"""The catalog of models: the configuration, weights and identity of each. Loads without torch.

A model is looked up once, when a manifest first names it, since the fingerprint of a folder of
weights takes time. A fault that is found then stands, too.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from jobs.errors import UnknownModelError
from jobs.text import unknown
from jobs.types import LoraIdentity, ModelIdentity
from pipelines.catalog.description import (
    CACHE_NAME,
    FILE_NAME,
    SUFFIX,
    describe_download,
    read_description,
)
from pipelines.catalog.files.sources import model_paths, public_source
from pipelines.catalog.folder_facts import FolderFacts, read_facts
from pipelines.catalog.keys.ltx2_guidance import NO_FURTHER_GUIDANCE
from pipelines.catalog.keys.second_stage import SecondStage
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights, inspect_model
from pipelines.catalog.model_yaml import load_model_config
from pipelines.catalog.tokenizer import Tokenizer, load_tokenizer
from pipelines.context_parallel.geometry import ModelGeometry, read_geometry
from pipelines.errors import ModelNotFoundError, PipelineError
from pipelines.private_folders import open_private_folder, user_folder

Inspect = Callable[[ModelConfig, Path], ModelWeights]
Ask = Callable[[ModelConfig, Path], Path]
WITHOUT_WEIGHTS = "a machine that only plans can do without: --remote, or nagfarm models --describe"


@dataclass(frozen=True)
class CatalogEntry:
    """One model.

    Args:
        identity: the model with the LoRAs that are on by default.
        weights: folder on this machine, which is not part of the identity: that of the weights, or
            that of a description without them.
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
    def facts(self) -> FolderFacts:
        """Return the facts of the folder that decide which clips it renders."""
        return self._facts

    @cached_property
    def _facts(self) -> FolderFacts:
        return read_facts(self.weights.folder)

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

    A model whose weights are not on this machine is known by its description, if there is one.

    Args:
        inspect: finds the weights of a model and their revision.
        ask: fetches the description of a model without weights here, and returns its folder; None
            looks for one on this machine alone.
    """

    def __init__(
        self,
        models_folder: Path | None = None,
        inspect: Inspect = inspect_model,
        ask: Ask | None = None,
    ) -> None:
        self._models_folder = models_folder
        self._inspect = inspect
        self._ask = ask
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

    def path(self, name: str) -> Path:
        """Return the path of one model's YAML."""
        return self._paths[name]

    def _load(self, name: str) -> CatalogEntry:
        config, path = self.config_file(name)
        weights = self._weights(config, path)
        if weights.described is None:
            source = public_source(config.source, path, weights.folder)
            sources = [
                public_source(lora.source, path, found.path.parent)
                for lora, found in zip(config.loras, weights.loras, strict=True)
            ]
        else:
            description = weights.described.description
            source, sources = description.source, [lora.source for lora in description.loras]
        loras = {
            lora.name: LoraIdentity(lora_source, found.revision, lora.weight, lora.component)
            for lora, lora_source, found in zip(config.loras, sources, weights.loras, strict=True)
        }
        identity = ModelIdentity(
            name=name,
            source=source,
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
            pipeline=config.pipeline or "",
            sigmas=config.scheduler.levels,
            stochastic_sampling=config.scheduler.stochastic_sampling,
            image_cond_noise_scale=config.image_cond_noise_scale,
            boundary_ratio=config.boundary_ratio,
            conditioning_scale=config.conditioning_scale,
            diffusion_forcing=(
                config.diffusion_forcing if config.pipeline_class.has_forcing else None
            ),
            layerwise_casting=config.layerwise_casting or "",
            ltx2_guidance=None
            if config.ltx2_guidance == NO_FURTHER_GUIDANCE
            else config.ltx2_guidance,
            quantization=config.quantization or "",
            gguf=tuple(f"{one.component}/{one.revision}" for one in weights.ggufs),
            second_stage=_second_stage(config, path, weights),
        )
        return CatalogEntry(config, identity, weights, loras)

    def _weights(self, config: ModelConfig, path: Path) -> ModelWeights:
        """Return the weights on this machine, or else those that a description describes."""
        try:
            return self._inspect(config, path)
        except ModelNotFoundError as error:
            if self._ask is not None:
                return read_description(self._ask(config, path), config, path)
            found = self._described(config, path)
            if found is None:
                raise ModelNotFoundError(f"{error}; {WITHOUT_WEIGHTS}") from error
            return found

    def _described(self, config: ModelConfig, path: Path) -> ModelWeights | None:
        """Return the weights that a description on this machine describes; None without one.

        A description that the user has put there wins over a download of the hub without weights,
        and this over a description that came from a cluster.
        """
        name = f"{config.name}{SUFFIX}"
        for place in (self._models_folder, path.parent):
            if place is not None and (place / name / FILE_NAME).is_file():
                return read_description(place / name, config, path)
        with suppress(ModelNotFoundError):
            if (downloaded := describe_download(config, path)) is not None:
                return downloaded
        with suppress(OSError, PipelineError), open_private_folder(user_folder(CACHE_NAME)):
            return read_description(user_folder(CACHE_NAME) / name, config, path)
        return None


def _second_stage(config: ModelConfig, path: Path, weights: ModelWeights) -> SecondStage | None:
    """Return the second stage with the revision of its upsampler, and no path of a machine."""
    stage, found = config.second_stage, weights.upsampler
    if stage is None or found is None:
        return None
    if weights.described is None:
        source = public_source(stage.source, path, found.folder)
    else:
        upsampler = weights.described.description.upsampler
        assert upsampler is not None, "a description was checked against the YAML"
        source = upsampler.source
    return replace(stage, source=source, revision=found.revision)
