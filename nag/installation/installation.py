"""Negative guidance on a stock diffusers pipeline: install it, guide with it, remove it."""

from collections.abc import Generator
from contextlib import contextmanager
from inspect import signature
from types import TracebackType
from typing import Any, Self

import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.hooks import HookRegistry

from nag.attention.negative_prompt_hook import NegativePromptHook
from nag.attention.text_concat import NegativeText, TextConcat
from nag.coverage import Coverage
from nag.errors import AlreadyInstalledError, UnsupportedProcessorError
from nag.installation.coverage import (
    PROCESSORS,
    count_coverage,
    find_text_attentions,
    find_transformers,
    is_guided,
    prove_coverage,
)
from nag.params import GuidanceParams, NagParams
from nag.pipeline import VideoPipeline

_HOOK_NAME = "negative_prompt"


class InstalledGuidance:
    """Guidance on one pipeline, built by `install`. Leaving its `with` restores the pipeline.

    Outside `guide` the pipeline renders exactly what it rendered before.
    """

    def __init__(self, pipeline: VideoPipeline) -> None:
        self._pipeline = pipeline
        self._transformers = find_transformers(pipeline)
        self._replaced: list[tuple[Any, Any]] = []
        self._hooks: list[NegativePromptHook] = []
        for transformer in self._transformers.values():
            registry = HookRegistry.check_if_exists_or_initialize(transformer)
            if registry.get_hook(_HOOK_NAME) is not None:
                raise AlreadyInstalledError(
                    "guidance is installed on this pipeline already; call its remove() first"
                )
        try:
            for component, transformer in self._transformers.items():
                self._install(component, transformer)
            self.check_coverage()
        except BaseException:
            self.remove()
            raise

    def _install(self, component: str, transformer: torch.nn.Module) -> None:
        text_concat = TextConcat()
        for name, attention in find_text_attentions(transformer):
            stock, block = attention.processor, f"{component}.{name}"
            processor_class = PROCESSORS.get(type(stock))
            if processor_class is None:
                raise UnsupportedProcessorError(
                    f"{block} has the processor {type(stock).__name__}, which guidance cannot "
                    "replace; restore the stock one or remove the other extension first"
                )
            processor = processor_class(text_concat, block)
            _move_settings(stock, processor)
            attention.set_processor(processor)
            self._replaced.append((attention, stock))
        hook = NegativePromptHook(text_concat, self._pipeline, component)
        registry = HookRegistry.check_if_exists_or_initialize(transformer)
        registry.register_hook(hook, _HOOK_NAME)
        self._hooks.append(hook)

    @property
    def coverage(self) -> Coverage:
        """The coverage now, counted on the modules themselves."""
        return count_coverage(self._transformers)

    def check_coverage(self) -> Coverage:
        """Prove that every text cross-attention is guided.

        Raises:
            NagCoverageError: a processor or a transformer was replaced after `install`.
        """
        return prove_coverage(self._pipeline, self._transformers)

    @contextmanager
    def guide(
        self,
        negative_prompt: str | NegativeText,
        params: GuidanceParams | None = None,
        max_sequence_length: int | None = None,
    ) -> Generator[None]:
        """Guide every call of the pipeline inside the `with`.

        With a strength that means no guidance, the pipeline renders the clip of the plain model,
        bit for bit. An inner `guide` replaces the outer one until it is left.

        Args:
            negative_prompt: text, which the pipeline's own encoder embeds, or embeddings: one row,
                or as many as the pipeline renders at once. It may be longer or shorter than the
                prompt, and differ from the negative prompt of classifier-free guidance.
            params: `NagParams`, `VsfParams` or `NasaParams`, which choose the method; default
                `NagParams()`. They may change from clip to clip: a compiled model has one graph
                for each method, whatever the strength.
            max_sequence_length: tokens of a text, as in the pipeline's call; None takes the call's
                default.

        Raises:
            NagCoverageError: a processor or a transformer was replaced after `install`.
            NagParameterError: `params` belong to no method.
            NagTextError: the embeddings do not fit the call; raised inside the pipeline's call.
            UnnamedCallError: the unconditional call is unknown; raised inside the pipeline's call.
        """
        self.check_coverage()
        if isinstance(negative_prompt, str):
            negative_prompt = encode_negative_prompt(
                self._pipeline, negative_prompt, max_sequence_length
            )
        outer = [(hook, hook.negative, hook.params) for hook in self._hooks]
        try:
            for hook in self._hooks:
                hook.set(negative_prompt, NagParams() if params is None else params)
            yield
        finally:
            for hook, outer_negative, outer_params in outer:
                hook.set(outer_negative, outer_params)

    def remove(self) -> None:
        """Restore every processor and remove the hooks. A second call does nothing."""
        for attention, stock in self._replaced:
            if is_guided(attention):
                _move_settings(attention.processor, stock)
                attention.set_processor(stock)
        self._replaced.clear()
        for transformer in self._transformers.values():
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


def install(pipeline: VideoPipeline) -> InstalledGuidance:
    """Install guidance on all transformers of a stock diffusers Wan or LTX-Video pipeline.

    Raises:
        UnsupportedPipelineError: the pipeline has a transformer of an unknown class, or none.
        UnsupportedProcessorError: a text cross-attention has a foreign processor.
        AlreadyInstalledError: guidance is installed already.
        NagCoverageError: the transformers have no text cross-attention.
    """
    return InstalledGuidance(pipeline)


@contextmanager
def guide(
    pipeline: VideoPipeline,
    negative_prompt: str | NegativeText,
    params: GuidanceParams | None = None,
    max_sequence_length: int | None = None,
) -> Generator[InstalledGuidance]:
    """Install guidance, guide every call inside the `with`, and remove it at the end.

    Args:
        pipeline: stock diffusers Wan or LTX-Video pipeline.
        negative_prompt: text or embeddings, as `InstalledGuidance.guide` takes them.
        params: `NagParams`, `VsfParams` or `NasaParams`; default `NagParams()`.
        max_sequence_length: tokens of a text, as in the pipeline's call; None takes the call's
            default.
    """
    with (
        install(pipeline) as installed,
        installed.guide(negative_prompt, params, max_sequence_length),
    ):
        yield installed


@torch.no_grad()
def encode_negative_prompt(
    pipeline: VideoPipeline, negative_prompt: str, max_sequence_length: int | None = None
) -> NegativeText:
    """Return the text's embeddings, made as the pipeline makes those of its prompt."""
    (transformer, *_) = find_transformers(pipeline).values()
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
    has_mask = isinstance(transformer, LTXVideoTransformer3DModel)
    return NegativeText(encoded[0], encoded[1] if has_mask else None)


def _move_settings(source: Any, target: Any) -> None:
    """Copy the settings of `set_attention_backend` and `enable_parallelism` to a processor."""
    target._attention_backend = source._attention_backend
    target._parallel_config = source._parallel_config
