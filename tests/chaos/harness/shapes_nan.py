"""The real Shapes model with NaN latents for some seeds, so that rendering really fails.

Everything else is the model's own.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch

from jobs.worker.setup import DiffusersLoader
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.load_progress import LoadProgress
from pipelines.request import GenerationRequest, TextEmbeddings
from pipelines.video_model import DeviceMonitor, LoadedModel, OnStep, PendingFrames, VideoModel

FIRST_NAN_SEED = 1000


@dataclass(frozen=True)
class ShapesNanModel:
    """A video model whose latents are NaN from the seed FIRST_NAN_SEED on."""

    model: VideoModel

    @property
    def device(self) -> DeviceMonitor:
        return self.model.device

    def encode_text(self, request: GenerationRequest, ahead: object = ()) -> TextEmbeddings:
        return self.model.encode_text(request)

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> torch.Tensor:
        latents = self.model.denoise(request, embeddings, on_step)
        return (
            torch.full_like(latents, float("nan"))
            if request.sampling.seed >= FIRST_NAN_SEED
            else latents
        )

    def decode(self, request: GenerationRequest, latents: torch.Tensor) -> PendingFrames:
        return self.model.decode(request, latents)

    def exact_attention(self) -> AbstractContextManager[None]:
        return self.model.exact_attention()

    def close(self) -> None:
        self.model.close()


@dataclass(frozen=True)
class ShapesNanLoader(DiffusersLoader):
    """A `DiffusersLoader` whose models give NaN for some seeds."""

    def load_model(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        num_threads: int,
        progress: LoadProgress,
        /,
    ) -> LoadedModel:
        loaded = super().load_model(config, weights, num_threads, progress)
        return replace(loaded, model=ShapesNanModel(loaded.model))

    def load_denoiser(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        num_threads: int,
        progress: LoadProgress,
        /,
    ) -> VideoModel:
        return ShapesNanModel(super().load_denoiser(config, weights, num_threads, progress))
