"""The real Shapes model, whose latents are made NaN for some seeds: a render that breaks where it breaks.

Decides which; everything else is the model's own.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from jobs.run.run import load_model
from nag import Coverage
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.request import GenerationRequest, TextEmbeddings, VideoFrames
from pipelines.video_model import OnStep, PeakMemory, VideoModel

FIRST_NAN_SEED = 1000


@dataclass(frozen=True)
class ShapesNanModel:
    """See the module."""

    family: VideoModel

    @property
    def nag_coverage(self) -> Coverage:
        return self.family.nag_coverage

    @property
    def device_name(self) -> str:
        return self.family.device_name

    def encode_text(self, request: GenerationRequest) -> TextEmbeddings:
        return self.family.encode_text(request)

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> torch.Tensor:
        latents = self.family.denoise(request, embeddings, on_step)
        return (
            torch.full_like(latents, float("nan"))
            if request.sampling.seed >= FIRST_NAN_SEED
            else latents
        )

    def decode(self, request: GenerationRequest, latents: torch.Tensor) -> VideoFrames:
        return self.family.decode(request, latents)

    def exact_attention(self) -> AbstractContextManager[None]:
        return self.family.exact_attention()

    def reset_peak_memory(self) -> None:
        self.family.reset_peak_memory()

    def peak_memory(self) -> PeakMemory:
        return self.family.peak_memory()

    def synchronize(self) -> None:
        self.family.synchronize()

    def close(self) -> None:
        self.family.close()


def load_shapes_nan(config: ModelConfig, weights: ModelWeights, num_threads: int) -> ShapesNanModel:
    return ShapesNanModel(load_model(config, weights, num_threads))
