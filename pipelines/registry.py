"""Which class drives which family."""

from pipelines.config import ModelConfig
from pipelines.diffusers_family import DiffusersFamily
from pipelines.loading import ModelWeights
from pipelines.ltx import LTXFamily
from pipelines.wan import WanFamily

FAMILIES: dict[str, type[DiffusersFamily]] = {"wan": WanFamily, "ltx": LTXFamily}


def load_model(config: ModelConfig, weights: ModelWeights) -> DiffusersFamily:
    """Loads a model whose folder was inspected."""
    return FAMILIES[config.family].load(config, weights)
