"""Which models there are, and which weights each one is. Loads without torch.

Looks a model up when a manifest first names it, and once: taking the fingerprint of a folder of weights is not free.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jobs.errors import UnknownModelError
from jobs.text import unknown
from jobs.types import LoraIdentity, ModelIdentity
from pipelines.catalog.model_config import (
    LoraConfig,
    ModelConfig,
    load_model_config,
    model_paths,
    resolve_source,
)
from pipelines.catalog.model_folder import ModelWeights, inspect_model
from pipelines.context_parallel.geometry import ModelGeometry, read_geometry

Inspect = Callable[[ModelConfig, Path], ModelWeights]


@dataclass(frozen=True)
class CatalogEntry:
    """One model.

    Args:
        weights: where they are on this machine; no part of its identity.
    """

    config: ModelConfig
    identity: ModelIdentity
    weights: ModelWeights

    @property
    def geometry(self) -> ModelGeometry:
        """How its clips can be cut; read when first asked for, which is where a group is.

        Raises:
            ModelFolderError: the folder's configs say what cannot be.
        """
        return self._geometry

    @cached_property
    def _geometry(self) -> ModelGeometry:
        return read_geometry(self.weights.folder, self.config)


class ModelCatalog:
    """The models that come with nagfarm, and those in `models_folder`, which win.

    Args:
        inspect: finds a model's weights and says which revision they are.
    """

    def __init__(self, models_folder: Path | None = None, inspect: Inspect = inspect_model) -> None:
        self._models_folder = models_folder
        self._inspect = inspect
        self._entries: dict[str, CatalogEntry] = {}

    @cached_property
    def _paths(self) -> dict[str, Path]:
        return model_paths(self._models_folder)

    def names(self) -> list[str]:
        """All models, sorted, whether their weights are here or not."""
        return sorted(self._paths)

    def get(self, name: str) -> CatalogEntry:
        """One model's configuration and weights.

        Raises:
            UnknownModelError: no YAML has this name.
            ModelConfigError: its YAML is wrong.
            ModelNotFoundError, ModelFolderError: its weights are missing or broken.
        """
        if name not in self._paths:
            raise UnknownModelError(
                f"{unknown('model', name, self.names())} (nagfarm models lists them)"
            )
        if name not in self._entries:
            self._entries[name] = self._load(name)
        return self._entries[name]

    def config(self, name: str) -> ModelConfig:
        """One model's configuration, whether its weights are here or not."""
        return load_model_config(self._paths[name])

    def _load(self, name: str) -> CatalogEntry:
        path = self._paths[name]
        config = load_model_config(path)
        weights = self._inspect(config, path)
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
            loras=tuple(
                LoraIdentity(
                    _public_source(lora, path, found.path.parent),
                    found.revision,
                    lora.weight,
                    lora.component,
                )
                for lora, found in zip(config.loras, weights.loras, strict=True)
            ),
            fuse_loras=config.fuse_loras,
            first_block_cache=config.first_block_cache,
            compile=config.compile,
            vae_tiling=config.vae_tiling,
        )
        return CatalogEntry(config, identity, weights)


def _public_source(config: ModelConfig | LoraConfig, config_path: Path, folder: Path) -> str:
    """Where weights come from, without the path of a machine."""
    is_local = isinstance(
        resolve_source(config, config_path), Path
    ) and not config.source.startswith("package:")
    return f"folder:{folder.name}" if is_local else config.source
