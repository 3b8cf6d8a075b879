"""The guided models of a pipeline, and the proof that all their text attentions are guided."""

from dataclasses import dataclass
from typing import Any

from diffusers.utils.torch_utils import is_compiled_module

from nag.adapters.adapter import Adapter
from nag.adapters.processor import NagProcessor
from nag.adapters.registry import MODULES, adapter_of
from nag.coverage import Coverage
from nag.errors import NagCoverageError, UnsupportedPipelineError

COMPONENTS = ("transformer", "transformer_2", "unet")


@dataclass(frozen=True, eq=False)
class GuidedModel:
    """A transformer or UNet of a pipeline, and the adapter of its family."""

    component: str
    model: Any
    adapter: Adapter

    def text_attentions(self) -> list[tuple[str, Any]]:
        """Return every attention to text, with its name."""
        return self.adapter.text_attentions(self.model)


def find_models(pipeline: Any) -> list[GuidedModel]:
    """Return the models of a pipeline that denoise: one, or two in Wan 2.2.

    A model that `torch.compile` wraps is returned without its wrapper, which calls it.

    Raises:
        UnsupportedPipelineError: no adapter knows one of the models or its variant, or there is
            none.
    """
    parts = {name: getattr(pipeline, name, None) for name in COMPONENTS}
    parts = {
        name: part._orig_mod if is_compiled_module(part) else part
        for name, part in parts.items()
        if part is not None
    }
    adapters = {name: adapter_of(part) for name, part in parts.items()}
    found = [
        GuidedModel(name, parts[name], adapter)
        for name, adapter in adapters.items()
        if adapter is not None
    ]
    if not found or len(found) < len(parts):
        kinds = [type(part).__name__ for name, part in parts.items() if adapters[name] is None]
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} must have a transformer or UNet of a class that can be "
            f"guided ({', '.join(MODULES)}), got {', '.join(kinds) or 'none'}"
        )
    for one in found:
        if reason := one.adapter.refusal(one.model):
            raise UnsupportedPipelineError(f"{type(pipeline).__name__}: {reason}")
    return found


def is_guided(attention: Any) -> bool:
    """Return True if the attention has a processor of this library."""
    return isinstance(attention.processor, NagProcessor)


def set_processor(attention: Any, processor: Any) -> None:
    """Give an attention another processor."""
    if hasattr(attention, "set_processor"):
        attention.set_processor(processor)
    else:  # Mochi's has a plain attribute
        attention.processor = processor


def count_coverage(models: list[GuidedModel]) -> Coverage:
    """Count the guided attentions on the modules themselves, as they are now."""
    attentions = [attention for one in models for _, attention in one.text_attentions()]
    return Coverage(sum(is_guided(attention) for attention in attentions), len(attentions))


def prove_coverage(pipeline: Any, models: list[GuidedModel]) -> Coverage:
    """Prove that every text attention of the pipeline is guided.

    Args:
        pipeline: pipeline that guidance was installed on.
        models: its models at that time.

    Raises:
        NagCoverageError: a processor or a model was replaced since, or there is nothing to guide.
    """
    now = find_models(pipeline)
    if [(one.component, id(one.model)) for one in now] != [
        (one.component, id(one.model)) for one in models
    ]:
        raise NagCoverageError(
            "the pipeline's transformers were replaced after guidance was installed; "
            "install it again"
        )
    coverage = count_coverage(models)
    if coverage.total == 0 or coverage.guided != coverage.total:
        raise NagCoverageError(
            f"only {coverage} text cross-attentions are guided; "
            "install guidance after every other extension"
        )
    return coverage
