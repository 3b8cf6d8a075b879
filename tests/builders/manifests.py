"""Rows of small manifests, and the text of a JSONL file that holds them."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

# Five rows: one repeats another, and three kinds of clip take equally long.
MIXED_ROWS = (
    {"prompt": "a"},
    {"prompt": "b"},
    {"prompt": "a"},
    {"prompt": "c", "num_inference_steps": 4},
    {"prompt": "c", "model": "coarse", "width": 96},
)
# Five rows for one device and for groups of four.
GROUPED_ROWS = (
    {"prompt": "a"},
    {"prompt": "b", "parallel": {"ulysses": 2, "ring": 2, "across_hosts": True}},
    {"prompt": "c", "parallel": {"ulysses": 4}},
    {"prompt": "d", "parallel": {"ulysses": 4}},
    {"prompt": "e", "parallel": {"ulysses": 4}, "num_frames": 13},
)


def jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)
