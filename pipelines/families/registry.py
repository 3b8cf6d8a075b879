"""Which class drives which family."""

import torch

from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.ltx import LTXModel
from pipelines.families.wan import WanModel

FAMILIES: dict[str, type[DiffusersModel]] = {"wan": WanModel, "ltx": LTXModel}


def load_model(config: ModelConfig, weights: ModelWeights, num_threads: int) -> DiffusersModel:
    """Loads a model whose folder was inspected.

    Args:
        config: the model.
        weights: where its weights are.
        num_threads: of torch in the calling thread, which has to be the one that renders. Part of what makes a clip the
            same on every worker of one machine.
    """
    torch.set_num_threads(num_threads)
    return FAMILIES[config.family].load(config, weights)


def load_denoiser(config: ModelConfig, weights: ModelWeights, num_threads: int) -> DiffusersModel:
    """As `load_model`, without the text encoder: for the ranks of a group to which embeddings are sent."""
    torch.set_num_threads(num_threads)
    return FAMILIES[config.family].load(config, weights, has_text=False)
