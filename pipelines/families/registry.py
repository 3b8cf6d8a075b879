"""The class that drives each family, and the functions that load a model."""

import torch

from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.ltx import LTXModel
from pipelines.families.wan import WanModel

FAMILIES: dict[str, type[DiffusersModel]] = {"wan": WanModel, "ltx": LTXModel}


def load_model(config: ModelConfig, weights: ModelWeights, num_threads: int) -> DiffusersModel:
    """Load a model whose folder was inspected.

    Args:
        config: the model.
        weights: the folder of its weights.
        num_threads: torch's threads in the calling thread, which must be the one that renders. The
            same number on every worker of a machine makes a clip the same on each.
    """
    torch.set_num_threads(num_threads)
    return FAMILIES[config.family].load(config, weights)


def load_denoiser(config: ModelConfig, weights: ModelWeights, num_threads: int) -> DiffusersModel:
    """Load a model without its text encoder, for the ranks that receive embeddings."""
    torch.set_num_threads(num_threads)
    return FAMILIES[config.family].load(config, weights, has_text=False)
