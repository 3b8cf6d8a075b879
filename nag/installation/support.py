"""The prompt pipelines of the installed diffusers, and which of them can be guided."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from nag.adapters.adapter import Adapter
from nag.adapters.registry import MODULES, adapter_of_class
from nag.attention.pipeline_passes import PASSES, Passes
from nag.installation.coverage import COMPONENTS
from nag.installation.pipeline_sources import PipelineSource, read_pipelines

Attention = Literal["cross", "joint", "sequence"]
Method = Literal["nag", "vsf", "nasa"]
PRIORS = ("prior", "decoder")  # they count where a pipeline has nothing else
UNKNOWN_PASSES = "the order of its passes is not known"
# The folders of pipelines whose UNet is of a guided class and takes its text in another way, for
# which its adapter refuses it.
OTHER_TEXTS = {
    "kandinsky": "its UNet mixes the text with images",
    "kandinsky2_2": "its UNet attends to images alone",
}
# Models with another text than embeddings of the prompt, or without an image.
OTHER_MODELS = {
    "Cosmos3OmniTransformer": "its text comes as token ids, packed in one sequence with all else",
    "GlmImageTransformer2DModel": (
        "its transformer attends to quoted letters alone; the prompt reaches it as image tokens"
    ),
    "PriorTransformer": "it denoises one embedding of an image, not the tokens of an image",
    "OmniGenTransformer2DModel": "its text comes as token ids, in one sequence with its images",
}
OTHER_PIPELINES: dict[str, str] = {
    **dict.fromkeys(
        ("LTX2DFRPipeline", "LTX2DFRTemporalRefinePipeline"),
        "its loop cannot be observed: it leaves its progress bar unentered",
    ),
    "AceStepPipeline": "its loop does not tell in which steps it has an unconditional half",
    "AnyFlowFARPipeline": "further calls beside its steps fill a cache of earlier chunks",
    "LDMTextToImagePipeline": "its call does not tell whether it has an unconditional half",
    **dict.fromkeys(
        ("LEditsPPPipelineStableDiffusion", "LEditsPPPipelineStableDiffusionXL"),
        "it edits an image by several prompts, and has no pass of one prompt",
    ),
    "ShapEPipeline": "its text enters only as a pooled vector",
    "VisualClozePipeline": (
        "two pipelines inside it render: guide and call its generation_pipe or its upsampling_pipe"
    ),
    "ZImageOmniPipeline": "its text comes in parts, with the images of a call between them",
}
_CLASS = re.compile(r"[A-Za-z_]\w*")
_NO_MODEL = frozenset({"None", "Optional", "Union", "Any", "list", "tuple", "MultiAdapter"})


@dataclass(frozen=True)
class PipelineSupport:
    """One prompt pipeline of diffusers.

    Args:
        name: name of the class.
        folder: folder of diffusers' pipelines that holds it.
        models: classes of its transformers or UNets, as its constructor names them.
        passes: the way in which it tells its passes apart; None if that is not known.
        reason: why it cannot be guided; empty if it can.
    """

    name: str
    folder: str
    models: tuple[str, ...]
    passes: Passes | None
    reason: str

    @property
    def is_supported(self) -> bool:
        return not self.reason

    @property
    def attention(self) -> Attention | None:
        """The attention to the text that guidance changes; None where nothing is guided.

        cross: image tokens attend to a text that stays the same. joint: text and image attend to
        one another, each with weights of its own. sequence: both are tokens of one sequence.
        """
        adapter = self._adapter()
        if adapter is None:
            return None
        return "joint" if adapter.lanes else "sequence" if adapter.sequence else "cross"

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods that `guide` takes for it; none where nothing is guided."""
        adapter = self._adapter()
        if adapter is None:
            return ()
        if adapter.lanes:
            return ("nag", "vsf") if adapter.lanes.can_flip else ("nag",)
        return ("nag",) if adapter.sequence else ("nag", "vsf", "nasa")

    def _adapter(self) -> Adapter | None:
        """Import the adapter of its models, and with it their classes; no model is loaded."""
        return adapter_of_class(self.models[-1]) if self.is_supported else None


def supported() -> list[PipelineSupport]:
    """Return the pipelines of the installed diffusers that can be guided, by name.

    Example:
        >>> next(one for one in supported() if one.name == "FluxPipeline").models
        ('FluxTransformer2DModel',)
        >>> flux, wan = (
        ...     next(one for one in supported() if one.name == name)
        ...     for name in ("FluxPipeline", "WanPipeline")
        ... )
        >>> flux.attention, flux.methods
        ('joint', ('nag',))
        >>> wan.attention, wan.methods
        ('cross', ('nag', 'vsf', 'nasa'))
    """
    return [one for one in prompt_pipelines() if one.is_supported]


@cache
def prompt_pipelines() -> tuple[PipelineSupport, ...]:
    """Return all pipelines of the installed diffusers that are called with a prompt, by name."""
    return tuple(_support_of(one) for one in read_pipelines())


def _support_of(source: PipelineSource) -> PipelineSupport:
    denoisers = COMPONENTS if source.parts.keys() & set(COMPONENTS) else PRIORS
    models = tuple(
        dict.fromkeys(
            kind
            for name, annotation in source.parts.items()
            if name in denoisers
            for kind in _CLASS.findall(annotation)
            if kind not in _NO_MODEL
        )
    )
    reason = _reason(source.name, models, is_deprecated=source.is_deprecated)
    if reason == UNKNOWN_PASSES:
        reason = OTHER_TEXTS.get(source.folder, reason)
    return PipelineSupport(source.name, source.folder, models, PASSES.get(source.name), reason)


def _reason(name: str, models: tuple[str, ...], *, is_deprecated: bool) -> str:
    unknown = [model for model in models if model not in MODULES]
    if is_deprecated:
        return "deprecated by diffusers"
    if not models:
        return "no transformer or UNet of its own"
    if name in OTHER_PIPELINES:
        return OTHER_PIPELINES[name]
    if unknown:
        return OTHER_MODELS.get(unknown[0], f"no adapter for {', '.join(unknown)}")
    return "" if name in PASSES else UNKNOWN_PASSES
