"""Give the clips of a walk their ids.

Clips are read ahead in batches, since texts are tokenized faster together. A random seed is drawn
here, since a row without a name is known by its id. Loads without torch.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

from jobs.clip_id import ClipIds
from jobs.errors import ManifestError
from jobs.manifest.walk.random_seeds import RandomSeeds
from jobs.types import BrokenClip, ClipSpec, ModelIdentity
from pipelines.catalog.tokenizer import Tokenizer
from pipelines.errors import RequestError
from pipelines.parallel_config import ParallelConfig
from pipelines.request import GenerationRequest
from pipelines.texts import EncodedTexts, RequestTokens, Tokens

BATCH_CLIPS = 256
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class RowKind:
    """The part that rows share which differ in prompt, seed, name and notes alone.

    Args:
        request: request of one of these rows.
    """

    model: ModelIdentity
    request: GenerationRequest
    parallel: ParallelConfig
    tokenizer: Tokenizer

    @cached_property
    def ids(self) -> ClipIds:
        return ClipIds(self.model, self.request)

    @cached_property
    def texts(self) -> EncodedTexts:
        return EncodedTexts.of(self.request)

    @cached_property
    def other_tokens(self) -> tuple[Tokens | None, Tokens | None]:
        """The tokens of the negative prompt and of the unconditional text."""
        negative, unconditional = (
            None if text is None else self.tokenizer.tokens(text) for text in self.texts[1:]
        )
        return negative, unconditional


class Resolved(NamedTuple):
    """The clip of a row without an id. The seed of its request is 0 if it is to be drawn."""

    kind: RowKind
    name: str
    request: GenerationRequest
    meta: Mapping[str, str]


def in_batches(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield rows in lists. A row that is wrong ends a list, and its error comes after the list."""
    batch: list[T] = []
    try:
        for row in rows:
            batch.append(row)
            if len(batch) == size:
                yield batch
                batch = []
    except ManifestError:
        yield batch
        raise
    yield batch


def read_prompts(clips: Sequence[Resolved | BrokenClip]) -> list[Tokens | None]:
    """Return the tokens of the prompt of each clip; None for a broken one.

    The tokenizer of each model reads the prompts of its clips together.
    """
    found: list[Tokens | None] = [None] * len(clips)
    by_model: dict[str, list[tuple[int, Resolved]]] = {}
    for index, clip in enumerate(clips):
        if isinstance(clip, Resolved):
            by_model.setdefault(clip.kind.model.name, []).append((index, clip))
    for of_model in by_model.values():
        tokenizer = of_model[0][1].kind.tokenizer
        read = tokenizer.read([clip.request.prompt for _, clip in of_model])
        for (index, _), tokens in zip(of_model, read, strict=True):
            found[index] = tokens
    return found


def identified(
    clip: Resolved, prompt: Tokens, seeds: RandomSeeds, *, is_random: bool, is_named: bool
) -> ClipSpec:
    """Return a clip with its tokens, its seed and its id.

    Args:
        prompt: tokens of its prompt.
        is_random: True if its seed is drawn; it is 0 until then.
        is_named: True if its row gives its name.

    Raises:
        RequestError: a text has more tokens than the model reads, and must not be cut.
    """
    kind, name, request, meta = clip
    tokens = RequestTokens(prompt, *kind.other_tokens)
    if request.text == "refuse":
        _check_length(tokens, kind.model)
    own_id = kind.ids.of(request.sampling.seed, tokens)
    if is_random:
        seed = seeds.of_name(name) if is_named else seeds.of_content(own_id)
        request = request.with_prompt_and_seed(request.prompt, seed)
        own_id = kind.ids.of(seed, tokens)
    return ClipSpec(own_id, name, kind.model, request, kind.parallel, meta, tokens)


def _check_length(tokens: RequestTokens, model: ModelIdentity) -> None:
    most = model.max_sequence_length
    if not tokens.has_more_than(most):
        return
    for name, of_text in tokens.by_field().items():
        if of_text.count > most:
            raise RequestError.of(
                f"{name} must have at most {most:,} tokens for {model.name}, not "
                f"{of_text.count:,}: shorten it, or let its end be cut with text: truncate",
                name,
            )
