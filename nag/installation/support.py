"""The prompt pipelines of the installed diffusers, and which of them can be guided.

Diffusers' sources are read, not imported: importing all of its pipelines takes minutes.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from nag.adapters.registry import MODULES
from nag.attention.pipeline_passes import PASSES, Passes
from nag.installation.coverage import COMPONENTS

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
    "ShapEPipeline": "its text enters only as a pooled vector",
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


def supported() -> list[PipelineSupport]:
    """Return the pipelines of the installed diffusers that can be guided, by name.

    Example:
        >>> next(one for one in supported() if one.name == "FluxPipeline").models
        ('FluxTransformer2DModel',)
    """
    return [one for one in prompt_pipelines() if one.is_supported]


@cache
def prompt_pipelines() -> tuple[PipelineSupport, ...]:
    """Return all pipelines of the installed diffusers that are called with a prompt, by name."""
    spec = find_spec("diffusers")
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent / "pipelines"
    found = [one for path in sorted(root.rglob("*.py")) for one in _pipelines_of(path, root)]
    return tuple(sorted(found, key=lambda one: one.name))


def _pipelines_of(path: Path, root: Path) -> Iterator[PipelineSupport]:
    folder = path.relative_to(root).parts[0]
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef) or not node.name.endswith("Pipeline"):
            continue
        methods = {one.name: one for one in node.body if isinstance(one, ast.FunctionDef)}
        call, init = methods.get("__call__"), methods.get("__init__")
        if call is None or init is None or "prompt" not in _arguments(call):
            continue
        parts = _arguments(init)
        denoisers = COMPONENTS if parts.keys() & set(COMPONENTS) else PRIORS
        models = tuple(
            dict.fromkeys(
                kind
                for name, annotation in parts.items()
                if name in denoisers
                for kind in _CLASS.findall(annotation)
                if kind not in _NO_MODEL
            )
        )
        bases = {ast.unparse(base) for base in node.bases}
        is_deprecated = folder == "deprecated" or "DeprecatedPipelineMixin" in bases
        reason = _reason(node.name, models, is_deprecated=is_deprecated)
        if reason == UNKNOWN_PASSES:
            reason = OTHER_TEXTS.get(folder, reason)
        yield PipelineSupport(node.name, folder, models, PASSES.get(node.name), reason)


def _arguments(function: ast.FunctionDef) -> dict[str, str]:
    """Return the arguments of a function with their annotations as text."""
    arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    return {one.arg: ast.unparse(one.annotation) if one.annotation else "" for one in arguments}


def _reason(name: str, models: tuple[str, ...], *, is_deprecated: bool) -> str:
    unknown = [model for model in models if model not in MODULES]
    if not models:
        return "no transformer or UNet of its own"
    if is_deprecated:
        return "deprecated by diffusers"
    if name in OTHER_PIPELINES:
        return OTHER_PIPELINES[name]
    if unknown:
        return OTHER_MODELS.get(unknown[0], f"no adapter for {', '.join(unknown)}")
    return "" if name in PASSES else UNKNOWN_PASSES
