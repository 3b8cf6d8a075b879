"""The id of a clip. Loads without torch.

An id is a hash of everything that decides the pixels, and of nothing else: the model's identity,
and of the request what the model gets. Clips with equal pixels so have one id:

- A text counts by its tokens, which are all that the text encoder reads of it. So `text` is not in
  an id: the tokens are those after a cut.
- Of the guidance, the parameters and the text count that act on the attention or on the
  unconditional pass. With `none`, or a `nag_scale` of 1, or a blank negative prompt, there are
  none. A range of steps counts by the steps that it holds.

Every other value counts as it is written, also one that a model may ignore. An id that is too fine
costs one more render; an id that is too coarse serves the wrong clip. So it never depends on the
clip's name, its row in a manifest, a worker or a clock.
"""

import hashlib
import json
from collections.abc import Container, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache, lru_cache
from typing import Any, get_args, get_type_hints

from jobs.types import BrokenClip, LoraIdentity, ModelIdentity
from nag.params import GuidanceParams, NagParams
from pipelines.clip_inputs import InputFile, InputFiles
from pipelines.request import GenerationRequest, SamplingParams
from pipelines.texts import RequestTokens, Tokens

CLIP_ID_SCHEMA = 3  # raise it when the same values begin to give other pixels
NUM_HEX_DIGITS = 32

# Fields that were added after the first clips had ids. Their defaults stand for the behaviour
# before them. A field with its default is left out of the id, so that old clips keep their ids and
# are not rendered again. Every further field belongs here.
LATER_FIELDS: dict[type[Any], frozenset[str]] = {
    ModelIdentity: frozenset(
        {
            "first_block_cache", "compile", "vae_tiling", "vae_memory_format", "vae_compile",
            "pipeline", "sigmas", "stochastic_sampling", "image_cond_noise_scale",
            "boundary_ratio", "conditioning_scale", "layerwise_casting", "ltx2_guidance",
            "quantization", "diffusion_forcing", "gguf", "second_stage",
        }
    ),
    GenerationRequest: frozenset({"inputs", "audio"}),
    SamplingParams: frozenset({"guidance_scale_2", "strength", "guidance_rescale"}),
}  # fmt: skip

_ENCODE = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
).encode

_SEED, _TEXTS = "seed", "texts"  # stand for the values until these are known
_NO_DEFAULT = object()
_quoted = json.encoder.encode_basestring_ascii

# Fields of a request that count by the texts, the parameters and the LoRAs that the model gets.
_RESOLVED_FIELDS = frozenset(
    {"prompt", "negative_prompt", "method", "nag", "vsf", "nasa", "text", "loras"}
)


class ClipIds:
    """The ids of the clips that differ in seed and prompt alone.

    Args:
        request: request of one of these clips; its seed and its texts count for nothing.
        others: tokens of the negative prompt and of the unconditional text.
    """

    def __init__(
        self,
        model: ModelIdentity,
        request: GenerationRequest,
        others: tuple[Tokens | None, Tokens | None],
    ) -> None:
        content = _canonical(request, without=_RESOLVED_FIELDS)
        content["sampling"]["seed"] = _SEED
        document = {
            "schema": CLIP_ID_SCHEMA,
            "model": _model(model),
            "request": content,
            "guidance": _guidance(
                request.attention_params, 0 if model.second_stage else request.sampling.num_steps
            ),
            "texts": _TEXTS,
        }
        # sorted by their names, the texts are last and the seed is the last text before them
        rest, _, end = _ENCODE(document).rpartition(_ENCODE(_TEXTS))
        head, _, middle = rest.rpartition(_ENCODE(_SEED))
        negative_prompt, unconditional = (
            "null" if text is None else _quoted(text.digest) for text in others
        )
        self._head = hashlib.sha256(head.encode("ascii"))
        self._middle, self._end = f"{middle}[", f",{negative_prompt},{unconditional}]{end}"

    def of(self, seed: int, prompt: Tokens) -> str:
        """Return 32 hex digits of the SHA-256 of the canonical JSON of all that decides pixels."""
        content = self._head.copy()
        content.update(f"{seed}{self._middle}{_quoted(prompt.digest)}{self._end}".encode("ascii"))
        return content.hexdigest()[:NUM_HEX_DIGITS]


def clip_id(model: ModelIdentity, request: GenerationRequest, tokens: RequestTokens) -> str:
    """Return the id of one clip."""
    others = tokens.negative_prompt, tokens.unconditional
    return ClipIds(model, request, others).of(request.sampling.seed, tokens.prompt)


def identify(
    model: ModelIdentity, loras: Mapping[str, LoraIdentity], request: GenerationRequest
) -> ModelIdentity:
    """Return the identity of a model with the LoRAs that a request chooses.

    Args:
        loras: every LoRA of the model, by name.
    """
    if request.loras is None:
        return model
    chosen = (replace(loras[one.name], weight=one.weight) for one in request.loras)
    return replace(model, loras=tuple(chosen))


def stand_in_id(name: str) -> str:
    """Return an id for a clip whose model is missing or broken, so that it has no id of its own.

    It follows from the clip's name alone. So a later plan whose model is whole finds it again.
    """
    return hashlib.sha256(f"no model\0{name}".encode()).hexdigest()[:NUM_HEX_DIGITS]


def broken_clip(name: str, model: str, error: Exception, message: str) -> BrokenClip:
    """Return the clip of a row whose model is missing or broken, under its stand-in id."""
    return BrokenClip(
        clip_id=stand_in_id(name),
        name=name,
        failure_class="request",
        error_type=type(error).__name__,
        message=message,
        model=model,
    )


@lru_cache(maxsize=1024)
def _guidance(params: GuidanceParams | None, num_steps: int) -> dict[str, Any] | None:
    """Return the parameters that act on the attention; a range ends where its steps end.

    With two stages (`num_steps` 0) it stays as it is, since each stage has steps of its own.
    """
    if params is None:
        return None
    if isinstance(params, NagParams) and num_steps:
        active = [step for step in range(num_steps) if params.is_active_at(step, num_steps)]
        params = replace(
            params, nag_start=active[0] / num_steps, nag_end=(active[-1] + 1) / num_steps
        )
    return _canonical(params)


@lru_cache(maxsize=1024)
def _model(model: ModelIdentity) -> dict[str, Any]:
    return _canonical(model)


def _canonical(value: Any, without: Container[str] = ()) -> dict[str, Any]:
    """Return a dataclass as nested dictionaries, so that every field counts, also later ones."""
    document: dict[str, Any] = {}
    for name, is_float, default in _fields(type(value)):
        entry = getattr(value, name)
        if name in without or entry == default:
            continue
        if is_float and entry is not None and not isinstance(entry, tuple):
            entry = float(entry) + 0.0  # 8 is 8.0, and -0.0 + 0.0 is 0.0
        elif isinstance(entry, InputFile):
            entry = entry.sha256
        elif isinstance(entry, InputFiles) and not entry.given():
            continue  # `fit` has nothing to act on
        elif is_dataclass(entry):
            entry = _canonical(entry)
        elif isinstance(entry, tuple):
            entry = [_canonical_entry(one) for one in entry]
        document[name] = entry
    return document


def _canonical_entry(entry: Any) -> Any:
    if isinstance(entry, InputFile):
        return entry.sha256
    return _canonical(entry) if is_dataclass(entry) else entry


@cache
def _fields(kind: type[Any]) -> tuple[tuple[str, bool, object], ...]:
    """Return the name of each field of a dataclass, True if it is a float, and its later default.

    The default of a field that is older than ids equals no value.
    """
    hints, later = get_type_hints(kind), LATER_FIELDS.get(kind, frozenset[str]())
    return tuple(
        (
            field.name,
            float in (hints[field.name], *get_args(hints[field.name])),
            field.default if field.name in later else _NO_DEFAULT,
        )
        for field in fields(kind)
    )
