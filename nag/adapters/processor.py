"""The base of the processors that guide. Each stands in for a stock one and has its settings."""

from typing import Any

from nag.stand_ins import stock_of


class NagProcessor:
    """Base of the processors that replace diffusers' own.

    Args:
        stock: the processor that it replaces. It keeps the settings, so that it can return.
        block: name of the attention in the pipeline, such as `transformer.blocks.0.attn2`.
    """

    def __init__(self, stock: Any, block: str) -> None:
        self.stock = stock
        self.block = block

    def __reduce__(self) -> tuple[Any, ...]:
        return stock_of(self)

    # Diffusers reads and sets both on every processor that it finds.
    @property
    def _attention_backend(self) -> Any:
        return self.stock._attention_backend

    @_attention_backend.setter
    def _attention_backend(self, backend: Any) -> None:
        self.stock._attention_backend = backend

    @property
    def _parallel_config(self) -> Any:
        return self.stock._parallel_config

    @_parallel_config.setter
    def _parallel_config(self, config: Any) -> None:
        self.stock._parallel_config = config
