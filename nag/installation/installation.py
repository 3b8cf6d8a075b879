"""Negative guidance on a stock diffusers pipeline: install it, guide with it, remove it."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, Unpack
from weakref import WeakValueDictionary

from nag.attention.block_text.hook import BlockTextHook
from nag.attention.block_text.pool import keep_prompt_alone
from nag.attention.call_hook import CallHook
from nag.attention.denoising_calls import DenoisingCalls, PipelineCalls
from nag.attention.guider_calls import GuiderCalls
from nag.attention.kept_projections import KeptProjections
from nag.attention.negative_prompt_hook import NegativePromptHook
from nag.attention.sequence.blocks_hook import SequenceLanesHook
from nag.attention.sequence.lanes import SequenceLanes
from nag.attention.sequence.text_hook import TextStreamHook, TextStreamPlan
from nag.attention.text.negative_text import NegativeText
from nag.attention.text_concat import UNGUIDED, TextConcat
from nag.attention.text_lanes import TextLanes
from nag.attention.text_lanes_hook import TextLanesHook
from nag.coverage import Coverage
from nag.errors import AlreadyInstalledError, NagCoverageError, UnsupportedProcessorError
from nag.installation.coverage import (
    GuidedModel,
    count_coverage,
    find_models,
    prove_coverage,
    set_processor,
)
from nag.installation.negative_prompt import NegativePrompt, encode_negative_prompt
from nag.params import GuidanceParams, NagStrengths, chosen_params
from nag.pipeline import DenoisingPipeline

# By the id of the transformer, whose hook keeps the guidance alive and no longer.
_INSTALLED: "WeakValueDictionary[int, InstalledGuidance]" = WeakValueDictionary()


@dataclass(frozen=True, eq=False)
class _Guide:
    """The negative prompt and the strengths inside one `guide`; no prompt means no guidance."""

    negative: NegativeText | None
    params: GuidanceParams


class InstalledGuidance:
    """Guidance on one pipeline, built by `install`. Leaving its `with` restores the pipeline.

    Outside `guide` the pipeline renders exactly what it rendered before.

    Example:
        >>> with install(pipe) as installed, installed.guide("red"):
        ...     print(type(installed).__name__, installed.is_guiding, installed.coverage)
        InstalledGuidance True 2 of 2
    """

    def __init__(self, pipeline: DenoisingPipeline, calls: DenoisingCalls | None = None) -> None:
        """Put guidance on a pipeline; `install` says what it raises.

        Args:
            pipeline: the pipeline.
            calls: its calls; None observes the pipeline.
        """
        self._pipeline = pipeline
        self._models = find_models(pipeline)
        self._processors: list[tuple[Any, Any]] = []  # each text attention with its new processor
        self._hooks: list[CallHook] = []
        self._guides: list[_Guide] = []  # entered and not left yet, the innermost last
        self._ends_with_guides = False
        self._calls: DenoisingCalls | None = None
        for one in self._models:
            if id(one.model) in _INSTALLED:
                raise AlreadyInstalledError(
                    "guidance is installed on this transformer already, by this or another "
                    "pipeline; call its remove() first"
                )
        try:
            self._calls = calls = calls or self._observe(pipeline)
            for one in self._models:
                self._install(one, calls)
            self.check_coverage()
        except BaseException:
            self.remove()
            raise

    def _observe(self, pipeline: DenoisingPipeline) -> DenoisingCalls:
        # Hunyuan's stock pipelines have guiders too; they name each call by its pass.
        if hasattr(pipeline, "guider") and hasattr(pipeline, "blocks"):
            return GuiderCalls(pipeline, self._check_if_guiding)
        return PipelineCalls(pipeline, self._check_if_guiding, self._end_loop)

    def _install(self, guided: GuidedModel, calls: DenoisingCalls) -> None:
        _INSTALLED[id(guided.model)] = self
        adapter = guided.adapter
        about = (calls, guided.component, self._check_processors)
        if adapter.lanes is not None:
            lanes = TextLanes(adapter.texts[0], can_flip=adapter.lanes.can_flip)
            self._replace_processors(guided, lambda _name: lanes)
            self._hooks.append(TextLanesHook(guided.model, lanes, adapter.lanes, *about))
            return
        if adapter.sequence is not None:
            tokens = SequenceLanes()
            self._replace_processors(guided, lambda _name: tokens)
            if isinstance(adapter.sequence, TextStreamPlan):
                hook = TextStreamHook(guided.model, tokens, adapter.sequence, *about)
            else:
                hook = SequenceLanesHook(guided.model, tokens, adapter.sequence, *about)
            self._hooks.append(hook)
            return
        if adapter.block_text is not None:
            concat = TextConcat(adapter.texts[0])
            self._replace_processors(guided, lambda _name: concat)
            plan = adapter.block_text
            self._hooks.append(BlockTextHook(guided.model, concat, adapter.texts, plan, *about))
            return
        text_concats = {text: TextConcat(text) for text in adapter.texts}
        self._replace_processors(guided, lambda name: text_concats[adapter.text_at(name)])
        attentions = (attention for _, attention in guided.text_attentions())
        projections = KeptProjections(guided.model, attentions)
        concats = tuple(text_concats.values())
        undo = [
            keep_prompt_alone(guided.model, pool, concats[0])
            for pool in adapter.pools(guided.model)
        ]
        self._hooks.append(NegativePromptHook(guided.model, concats, projections, undo, *about))

    def _replace_processors(
        self,
        guided: GuidedModel,
        layout_of: Callable[[str], TextConcat | TextLanes | SequenceLanes],
    ) -> None:
        """Replace the processor of every text attention.

        Args:
            layout_of: returns what tells a processor the layout of the text, by the attention's
                name.
        """
        for name, attention in guided.text_attentions():
            stock, block = attention.processor, f"{guided.component}.{name}"
            make = guided.adapter.processors.get(type(stock))
            if make is None:
                raise UnsupportedProcessorError(
                    f"{block} has the processor {type(stock).__name__}, which guidance cannot "
                    "replace; restore the stock one or remove the other extension first"
                )
            processor = make(stock, layout_of(name), block)
            set_processor(attention, processor)
            self._processors.append((attention, processor))

    @property
    def coverage(self) -> Coverage:
        """The coverage now, counted on the modules themselves."""
        return count_coverage(self._models)

    def belongs_to(self, pipeline: DenoisingPipeline) -> bool:
        """Return True if this guidance was installed on this pipeline."""
        return self._pipeline is pipeline

    @property
    def is_guiding(self) -> bool:
        """True inside `guide`."""
        return any(hook.negative is not None for hook in self._hooks)

    def check_coverage(self) -> Coverage:
        """Prove that every text cross-attention is guided.

        Raises:
            NagCoverageError: a processor or a transformer was replaced after `install`.
        """
        coverage = prove_coverage(self._pipeline, self._models)
        self._check_processors()
        return coverage

    def _check_processors(self) -> None:
        for attention, processor in self._processors:
            if attention.processor is not processor:
                raise NagCoverageError(
                    f"the processor of {processor.block} was replaced after guidance was "
                    "installed; install guidance after every other extension"
                )

    def end_call(self, output: Any) -> Any:
        """End the call of a model from within it, and return its output: to remove guidance then.

        Torch finds no hook to call after it.
        """
        for hook in self._hooks:
            output = hook.end_call(output)
        return output

    def _end_loop(self) -> None:
        for hook in self._hooks:
            hook.end_loop()

    def _check_if_guiding(self) -> None:
        if self.is_guiding:
            self.check_coverage()

    @contextmanager
    def guide(
        self,
        negative_prompt: NegativePrompt,
        params: GuidanceParams | None = None,
        max_sequence_length: int | None = None,
        **strengths: Unpack[NagStrengths],
    ) -> Generator[None]:
        """Guide every call of the pipeline inside the `with`.

        With a strength that means no guidance, the pipeline renders the clip of the plain model,
        bit for bit. An inner `guide` replaces the outer one until it is left, in any order.

        Args:
            negative_prompt: a text, which the pipeline's own encoder embeds, or a list with one
                text for each prompt of the call, or embeddings: one row, or one for each prompt.
                It may differ from the negative prompt of classifier-free guidance.
            params: `NagParams`, `VsfParams` or `NasaParams`, which choose the method; None takes
                `NagParams` with the family's defaults. They may change from clip to clip: a
                compiled model has one graph for each method, whatever the strength.
            max_sequence_length: tokens of a text, as in the pipeline's call; None takes the call's
                default.
            strengths: fields of `NagParams`, in place of `params`: `nag_scale=9`.

        Raises:
            NagCoverageError: a processor or a transformer was replaced after `install`; also raised
                inside the pipeline's call.
            NagParameterError: `params` belong to no method, or `strengths` are given too.
            NagTextError: the negative prompt is neither text nor embeddings; raised inside the
                pipeline's call if it does not fit the call.
            UnnamedCallError: the unconditional call is unknown; raised inside the pipeline's call.
            ForeignCallError: another pipeline uses the transformer; raised inside its call.
        """
        if self._calls is None:
            raise NagCoverageError(
                "this guidance was removed from its pipeline: call install again"
            )
        chosen = chosen_params(params, strengths, self._models[0].adapter.defaults)
        self.check_coverage()
        negative = encode_negative_prompt(self._pipeline, negative_prompt, max_sequence_length)
        one = _Guide(negative, chosen)
        self._guides.append(one)
        try:
            self._follow_last_guide()
            yield
        finally:
            self._guides.remove(one)
            self._follow_last_guide()
            if self._ends_with_guides:
                self.remove_after_guides()

    def _follow_last_guide(self) -> None:
        """Guide as the last `guide` that was not left yet, or not at all."""
        last = self._guides[-1] if self._guides else _Guide(None, UNGUIDED)
        for hook in self._hooks:
            hook.set(last.negative, last.params)

    def remove(self) -> None:
        """Restore every processor and remove the hooks. A second call does nothing."""
        for attention, processor in self._processors:
            if attention.processor is processor:
                set_processor(attention, processor.stock)
        self._processors.clear()
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        if self._calls is not None:
            self._calls.remove()
            self._calls = None
        for one in self._models:
            if _INSTALLED.get(id(one.model)) is self:
                del _INSTALLED[id(one.model)]

    def remove_after_guides(self) -> None:
        """Remove it now or, inside a `guide`, at the end of the last one that is left."""
        self._ends_with_guides = True
        if not self._guides:
            self.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()


def install(pipeline: DenoisingPipeline) -> InstalledGuidance:
    """Install guidance on all transformers or the UNet of a diffusers pipeline.

    Raises:
        UnsupportedPipelineError: the pipeline has a transformer of an unknown class, or none.
        UnsupportedProcessorError: a text cross-attention has a foreign processor.
        AlreadyInstalledError: guidance is installed already.
        NagCoverageError: the transformers have no text cross-attention.

    Example:
        >>> size = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2}
        >>> with install(pipe) as nag:
        ...     print(nag.coverage)
        ...     for color in ("red", "blue"):
        ...         with nag.guide(color, nag_scale=11, nag_end=0.5):
        ...             clip = pipe("a circle", guidance_scale=1, **size).frames
        2 of 2
    """
    return InstalledGuidance(pipeline)


@contextmanager
def guide(
    pipeline: DenoisingPipeline,
    negative_prompt: NegativePrompt,
    params: GuidanceParams | None = None,
    max_sequence_length: int | None = None,
    **strengths: Unpack[NagStrengths],
) -> Generator[InstalledGuidance]:
    """Install guidance, guide every call inside the `with`, and remove it at the end.

    Inside another `guide` of the same pipeline, this one replaces the outer one until it is left.

    Args:
        pipeline: stock or modular diffusers pipeline; `nag.supported()` lists them.
        negative_prompt: text, texts or embeddings, as `InstalledGuidance.guide` takes them.
        params: `NagParams`, `VsfParams` or `NasaParams`; None takes `NagParams` with the family's
            defaults.
        max_sequence_length: tokens of a text, as in the pipeline's call; None takes the call's
            default.
        strengths: fields of `NagParams`, in place of `params`: `nag_scale=9`.

    Example:
        >>> with guide(pipe, "red", nag_scale=11):
        ...     clip = pipe(
        ...         "a circle", height=32, width=32, num_frames=5, num_inference_steps=2,
        ...         guidance_scale=1,
        ...     ).frames
        >>> clip.shape
        (1, 5, 32, 32, 3)
    """
    installed = _INSTALLED.get(id(find_models(pipeline)[0].model))
    if installed is not None and installed.belongs_to(pipeline):
        with installed.guide(negative_prompt, params, max_sequence_length, **strengths):
            yield installed
        return
    installed = install(pipeline)
    try:
        with installed.guide(negative_prompt, params, max_sequence_length, **strengths):
            yield installed
    finally:
        installed.remove_after_guides()
