"""Puts negative guidance on a stock diffusers pipeline and takes it off again.

Decides which modules are text cross-attentions and proves that all of them are covered. How a call is packed is in
`packing`, what a processor computes in `wan` and `ltx`, what the methods of guidance make of it in `methods`.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from types import TracebackType
from typing import Any, Self

import torch
from diffusers import LTXVideoTransformer3DModel, WanTransformer3DModel
from diffusers.hooks import HookRegistry
from diffusers.models.transformers.transformer_ltx import LTXAttention, LTXVideoAttnProcessor
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor

from nag.adapters.ltx import NagLTXVideoAttnProcessor
from nag.adapters.wan import NagWanAttnProcessor
from nag.attention.text_concat import NegativeText, Packing, PackingHook
from nag.errors import NagCoverageError
from nag.params import GuidanceParams, NagParams

_HOOK_NAME = "nag_packing"
_PROCESSORS = {
    WanAttnProcessor: NagWanAttnProcessor,
    LTXVideoAttnProcessor: NagLTXVideoAttnProcessor,
}


@dataclass(frozen=True)
class Coverage:
    """How many of the pipeline's text cross-attentions are guided."""

    guided: int
    total: int

    def __str__(self) -> str:
        return f"{self.guided} of {self.total}"


class InstalledNag:
    """NAG on one pipeline. A context manager: leaving it restores the pipeline.

    Built by `install`. Outside `guide` the pipeline renders exactly what it rendered before.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._transformers = _transformers(pipeline)
        self._replaced: list[tuple[Any, Any]] = []
        self._hooks: list[PackingHook] = []
        for transformer in self._transformers:
            registry = HookRegistry.check_if_exists_or_initialize(transformer)
            if registry.get_hook(_HOOK_NAME) is not None:
                raise NagCoverageError("NAG is installed on this pipeline already; remove it first")
        try:
            for transformer in self._transformers:
                self._install(transformer)
            self.check_coverage()
        except BaseException:
            self.remove()
            raise

    def _install(self, transformer: torch.nn.Module) -> None:
        packing = Packing()
        for name, attention in _cross_attentions(transformer):
            stock = attention.processor
            processor_class = _PROCESSORS.get(type(stock))
            if processor_class is None:
                raise NagCoverageError(
                    f"{name} has the processor {type(stock).__name__}, which NAG cannot stand in for; "
                    "restore the stock one or remove the other extension first"
                )
            processor = processor_class(packing)
            _move_settings(stock, processor)
            attention.set_processor(processor)
            self._replaced.append((attention, stock))
        hook = PackingHook(packing, self._pipeline)
        registry = HookRegistry.check_if_exists_or_initialize(transformer)
        registry.register_hook(hook, _HOOK_NAME)
        self._hooks.append(hook)

    @property
    def coverage(self) -> Coverage:
        """Counted now, on the modules themselves."""
        attentions = [
            attention for model in self._transformers for _, attention in _cross_attentions(model)
        ]
        guided = sum(
            isinstance(attention.processor, tuple(_PROCESSORS.values())) for attention in attentions
        )
        return Coverage(guided, len(attentions))

    def check_coverage(self) -> Coverage:
        """Proves that guidance reaches all of the text.

        Raises:
            NagCoverageError: a text cross-attention is not guided: somebody replaced its processor, or the pipeline's
                transformer.
        """
        if _transformers(self._pipeline) != self._transformers:
            raise NagCoverageError(
                "the pipeline's transformers were replaced after NAG was installed; install it again"
            )
        coverage = self.coverage
        if coverage.total == 0 or coverage.guided != coverage.total:
            raise NagCoverageError(
                f"only {coverage} text cross-attentions are guided; install NAG last"
            )
        return coverage

    @contextmanager
    def guide(self, negative: NegativeText, params: GuidanceParams) -> Generator[None]:
        """Guides every call of the pipeline inside the `with`; a strength of none is the plain model, bit for bit.

        Inside another `guide` it takes over until it is left.

        Args:
            negative: one row, or as many as the pipeline renders at once. It may be longer or shorter than the prompt
                and other than the negative prompt of classifier-free guidance.
            params: `NagParams`, `VsfParams` or `NasaParams`: they choose the method. They may change from clip to clip;
                a compiled model has one graph for each method, none for a strength.

        Raises:
            NagCoverageError: processors or transformers were replaced after `install`.
            NagParameterError: `params` are no method's.
            NagTextError: the embeddings do not fit the call, raised from inside the pipeline's call.
        """
        self.check_coverage()
        outer = [(hook, hook.negative, hook.params) for hook in self._hooks]
        try:
            for hook in self._hooks:
                hook.set(negative, params)
            yield
        finally:
            for hook, outer_negative, outer_params in outer:
                hook.set(outer_negative, outer_params)

    def remove(self) -> None:
        """Restores every processor and takes the hooks off. Calling it again does nothing."""
        for attention, stock in self._replaced:
            if isinstance(attention.processor, tuple(_PROCESSORS.values())):
                _move_settings(attention.processor, stock)
                attention.set_processor(stock)
        self._replaced.clear()
        for transformer in self._transformers:
            registry = HookRegistry.check_if_exists_or_initialize(transformer)
            registry.remove_hook(_HOOK_NAME, recurse=False)
        self._hooks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()


def install(pipeline: Any) -> InstalledNag:
    """Puts NAG on all transformers of a stock diffusers Wan or LTX pipeline (two of them in Wan 2.2).

    Raises:
        NagCoverageError: the pipeline has no transformer that NAG knows, or one with foreign processors.
    """
    return InstalledNag(pipeline)


@contextmanager
def guide(
    pipeline: Any,
    negative_prompt: str,
    params: GuidanceParams | None = None,
    max_sequence_length: int | None = None,
) -> Generator[InstalledNag]:
    """Installs NAG, encodes the negative prompt with the pipeline's own text encoder, and guides inside the `with`.

    Args:
        pipeline: a stock diffusers Wan or LTX pipeline.
        negative_prompt: what the video is not to show.
        params: `NagParams`, `VsfParams` or `NasaParams`; default `NagParams()`.
        max_sequence_length: as given to the pipeline's call; None takes the call's own default.
    """
    with install(pipeline) as installed:
        negative = encode_negative_prompt(pipeline, negative_prompt, max_sequence_length)
        with installed.guide(negative, params or NagParams()):
            yield installed


@torch.no_grad()
def encode_negative_prompt(
    pipeline: Any, negative_prompt: str, max_sequence_length: int | None = None
) -> NegativeText:
    """Encodes text as the pipeline encodes its prompt."""
    is_ltx = isinstance(_transformers(pipeline)[0], LTXVideoTransformer3DModel)
    length = (
        max_sequence_length
        or signature(type(pipeline).__call__).parameters["max_sequence_length"].default
    )
    encoded = pipeline.encode_prompt(
        negative_prompt,
        do_classifier_free_guidance=False,
        max_sequence_length=length,
        device=pipeline._execution_device,
    )
    return NegativeText(encoded[0], encoded[1] if is_ltx else None)


def _transformers(pipeline: Any) -> list[Any]:
    known = (WanTransformer3DModel, LTXVideoTransformer3DModel)
    parts = [getattr(pipeline, name, None) for name in ("transformer", "transformer_2")]
    found = [part for part in parts if isinstance(part, known)]
    if not found or len(found) != sum(part is not None for part in parts):
        kinds = ", ".join(type(part).__name__ for part in parts if part is not None) or "none"
        raise NagCoverageError(
            f"{type(pipeline).__name__} must have Wan or LTX-Video transformers "
            f"(WanTransformer3DModel, LTXVideoTransformer3DModel), not {kinds}"
        )
    return found


def _cross_attentions(transformer: torch.nn.Module) -> list[tuple[str, Any]]:
    """Every text cross-attention, by what it is rather than by its name."""
    return [
        (name, module)
        for name, module in transformer.named_modules()
        if (isinstance(module, WanAttention) and module.is_cross_attention)
        or (isinstance(module, LTXAttention) and name.endswith(".attn2"))
    ]


def _move_settings(source: Any, target: Any) -> None:
    """Carries over what `set_attention_backend` and `enable_parallelism` have put on a processor."""
    target._attention_backend = source._attention_backend
    target._parallel_config = source._parallel_config
