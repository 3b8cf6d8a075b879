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
        return ClipIds(self.model, self.request, self.other_tokens)

    @cached_property
    def other_tokens(self) -> tuple[Tokens | None, Tokens | None]:
        """The tokens of the negative prompt and of the unconditional text."""
        negative, unconditional = (
            None if text is None else self.tokenizer.tokens(text)
            for text in EncodedTexts.of(self.request)[1:]
        )
        return negative, unconditional

    @cached_property
    def has_other_cut(self) -> bool:
        """True if another text than the prompt has more tokens than the model reads."""
        most = self.model.max_sequence_length
        return any(tokens.count > most for tokens in self.other_tokens if tokens)


class Resolved(NamedTuple):
    """The clip of a row without an id. The seed is None if it is to be drawn."""

    kind: RowKind
    name: str
    prompt: str
    seed: int | None
    meta: Mapping[str, str]


class RowClip(NamedTuple):
    """The clip of a row with its id. A walk that only counts clips needs no more of it.

    Args:
        tokens: tokens of the prompt.
    """

    kind: RowKind
    clip_id: str
    name: str
    prompt: str
    seed: int
    meta: Mapping[str, str]
    tokens: Tokens

    @property
    def is_text_cut(self) -> bool:
        """True if a text has more tokens than the model reads."""
        kind = self.kind
        return self.tokens.count > kind.model.max_sequence_length or kind.has_other_cut

    def spec(self) -> ClipSpec:
        kind = self.kind
        return ClipSpec(
            self.clip_id,
            self.name,
            kind.model,
            kind.request.with_prompt_and_seed(self.prompt, self.seed),
            kind.parallel,
            self.meta,
            RequestTokens(self.tokens, *kind.other_tokens),
        )


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
        read = tokenizer.read([clip.prompt for _, clip in of_model])
        for (index, _), tokens in zip(of_model, read, strict=True):
            found[index] = tokens
    return found


def identified(clip: Resolved, prompt: Tokens, seeds: RandomSeeds, *, is_named: bool) -> RowClip:
    """Return a clip with its tokens, its seed and its id.

    Args:
        prompt: tokens of its prompt.
        is_named: True if its row gives its name.

    Raises:
        RequestError: a text has more tokens than the model reads, and must not be cut.
    """
    kind, name, text, seed, meta = clip
    if kind.request.text == "refuse":
        most = kind.model.max_sequence_length
        if prompt.count > most or kind.has_other_cut:
            raise _too_long(RequestTokens(prompt, *kind.other_tokens), kind.model)
    if seed is None:
        seed = seeds.of_name(name) if is_named else seeds.of_content(kind.ids.of(0, prompt))
    return RowClip(kind, kind.ids.of(seed, prompt), name, text, seed, meta, prompt)


def _too_long(tokens: RequestTokens, model: ModelIdentity) -> RequestError:
    """Return the error about the first text of too many tokens."""
    most = model.max_sequence_length
    name, count = next(
        (name, one.count) for name, one in tokens.by_field().items() if one.count > most
    )
    return RequestError.of(
        f"{name} must have at most {most:,} tokens for {model.name}, not {count:,}: shorten it, or "
        "let its end be cut with text: truncate",
        name,
    )
