"""Transformers whose weights take fewer bits than they compute with.

Layerwise casting keeps each linear layer in a float of eight bits and makes `dtype` of it for the
time of its call. Diffusers decides which layers: not embeddings, norms, the first and the last one.
"""

from typing import Any

import torch

from pipelines.catalog.model_config import ModelConfig
from pipelines.context_parallel.plans import transformers_of


def cast_layers(pipeline: Any, config: ModelConfig) -> None:
    """Keep the transformers' layers in the dtype that the model's YAML names, if it names one.

    Call it when the LoRAs are loaded, which keep their own dtype. It cannot be taken back.
    """
    if config.layerwise_casting is None:
        return
    for transformer in transformers_of(pipeline).values():
        transformer.enable_layerwise_casting(
            storage_dtype=getattr(torch, config.layerwise_casting),
            compute_dtype=getattr(torch, config.dtype),
        )
