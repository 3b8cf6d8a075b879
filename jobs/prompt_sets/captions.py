"""Captions of pictures as prompts, from a captions file in COCO's form.

The file is the user's: `{"images": [...], "annotations": [{"image_id", "id", "caption"}]}`. Each
picture gives its caption with the lowest id, and a sample is drawn by a hash of the picture's id,
so that the same file gives the same prompts, and a larger sample holds a smaller one.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from jobs.errors import RefusedError
from jobs.prompt_sets.prompt_rows import FORM, MAX_PROMPTS, SetPrompt, clean
from jobs.text import shown
from pipelines.regular_files import read_bounded

MAX_CAPTIONS_BYTES = 160_000_000  # COCO's training captions of 2017 have 92 MB


def caption_prompts(path: Path, limit: int | None, negative: str) -> Iterator[SetPrompt]:
    """Yield a prompt for each picture, in the order of the sample.

    Args:
        limit: prompts of the sample; None for every picture.
        negative: negative prompt of each.

    Raises:
        RefusedError: the file cannot be read or has another form.
    """
    by_picture: dict[int, tuple[int, object]] = {}
    for at, entry in enumerate(_annotations(path)):
        match entry:
            case {"image_id": int(picture), "id": int(number), "caption": str(caption)}:
                known = by_picture.get(picture)
                if known is None or number < known[0]:
                    by_picture[picture] = number, caption
            case _:
                raise RefusedError(
                    f"{path}: annotations[{at}] must have image_id, id and caption, got "
                    f"{shown(entry)}"
                )
    pictures = sorted(by_picture, key=_place)
    for picture in pictures[:limit]:
        number, caption = by_picture[picture]
        try:
            prompt = clean(caption)
        except ValueError as error:
            raise RefusedError(f"{path}: the caption {number}: {error}") from error
        notes = {FORM: "captions", "image_id": str(picture), "caption_id": str(number)}
        yield SetPrompt(f"caption-{picture}", prompt, negative, notes)


def _annotations(path: Path) -> list[Any]:
    document = read_document(path, MAX_CAPTIONS_BYTES)
    found: Any = cast("dict[str, Any]", document).get("annotations") if isinstance(
        document, dict
    ) else None  # fmt: skip
    if not isinstance(found, list) or not 0 < len(cast("list[Any]", found)) <= MAX_PROMPTS:
        raise RefusedError(
            f"{path}: expected captions in COCO's form, an object with 1 to {MAX_PROMPTS:,} "
            "annotations"
        )
    return cast("list[Any]", found)


def read_document(path: Path, max_bytes: int) -> object:
    """Read a JSON file of bounded size.

    Raises:
        RefusedError: it cannot be read, is too large or is not JSON.
    """
    try:
        return json.loads(read_bounded(path, max_bytes))
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{path} is not JSON: {error}") from error


def _place(picture: int) -> bytes:
    return hashlib.sha256(str(picture).encode()).digest()
