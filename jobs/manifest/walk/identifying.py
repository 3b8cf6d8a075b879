"""Give the clips of a walk their ids.

Clips are read ahead in batches, since texts are tokenized faster together. A random seed is drawn
here, since a row without a name is known by its id. Loads without torch.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from jobs.clip_id import clip_id
from jobs.errors import ManifestError
from jobs.manifest.walk.random_seeds import RandomSeeds
from jobs.types import BrokenClip, ClipSpec, ModelIdentity
from pipelines.catalog.tokenizer import Tokenizer
from pipelines.errors import RequestError
from pipelines.texts import EncodedTexts, RequestTokens

BATCH_CLIPS = 256
T = TypeVar("T")


class Tokenized(Protocol):
    """A model with its tokenizer."""

    @property
    def tokenizer(self) -> Tokenizer: ...


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


@dataclass(frozen=True)
class Identifier:
    """Gives the clips of one walk their ids, in the order of their rows.

    Args:
        find_model: returns a model by its name.
    """

    find_model: Callable[[str], Tokenized]
    seeds: RandomSeeds

    def read_texts(self, specs: Iterable[ClipSpec | BrokenClip]) -> None:
        """Let the tokenizer of each model read the texts of its clips together."""
        texts: dict[str, list[str]] = {}
        for spec in specs:
            if isinstance(spec, ClipSpec):
                encoded = [text for text in EncodedTexts.of(spec.request) if text is not None]
                texts.setdefault(spec.model.name, []).extend(encoded)
        for model, of_model in texts.items():
            self.find_model(model).tokenizer.read(of_model)

    def identified(
        self, spec: ClipSpec | BrokenClip, *, is_random: bool, is_named: bool
    ) -> ClipSpec | BrokenClip:
        """Return a clip with its tokens, its seed and its id. A broken one has an id already.

        Args:
            is_random: True if its seed is drawn; it is 0 until then.
            is_named: True if its row gives its name.

        Raises:
            RequestError: a text has more tokens than the model reads, and must not be cut.
        """
        if isinstance(spec, BrokenClip):
            return spec
        model, request = spec.model, spec.request
        tokens = RequestTokens.of(request, self.find_model(model.name).tokenizer.tokens)
        if request.text == "refuse":
            _check_length(tokens, model)
        own_id = clip_id(model, request, tokens)
        if is_random:
            seed = self.seeds.of_name(spec.name) if is_named else self.seeds.of_content(own_id)
            request = replace(request, sampling=replace(request.sampling, seed=seed))
            own_id = clip_id(model, request, tokens)
        return replace(spec, clip_id=own_id, request=request, tokens=tokens)


def _check_length(tokens: RequestTokens, model: ModelIdentity) -> None:
    most = model.max_sequence_length
    for name, of_text in tokens.by_field().items():
        if of_text.count > most:
            raise RequestError.of(
                f"{name} must have at most {most:,} tokens for {model.name}, not "
                f"{of_text.count:,}: shorten it, or let its end be cut with text: truncate",
                name,
            )
