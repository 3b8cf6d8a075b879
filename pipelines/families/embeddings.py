"""Text embeddings, computed once for each distinct text and kept while there is room."""

from collections import OrderedDict
from collections.abc import Callable

import torch

EncodedText = tuple[
    torch.Tensor, torch.Tensor | None
]  # embeds (1, L, D), attention mask (1, L) or None


class TextEmbeddingCache:
    """Remembers what one text encoder made of each text; it belongs to one loaded model, and so to one revision.

    The key is the text itself, prompts and negative prompts alike, so that a text is never taken for another, and texts
    are encoded one at a time, so that an embedding does not depend on what it was encoded with.

    Args:
        encode: text to embeddings.
        max_entries: the least recently used text is forgotten beyond it (4 MB an entry for UMT5-XXL at 512 tokens).
    """

    def __init__(self, encode: Callable[[str], EncodedText], max_entries: int = 256) -> None:
        self._encode = encode
        self._max_entries = max_entries
        self._entries: OrderedDict[str, EncodedText] = OrderedDict()

    def __call__(self, text: str) -> EncodedText:
        if text in self._entries:
            self._entries.move_to_end(text)
            return self._entries[text]
        encoded = self._encode(text)
        self._entries[text] = encoded
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
        return encoded
