"""The objects of an output that serve the eye alone; no record names them.

A poster and a thumbnail have the digits of their MP4 in their keys; the latents and the small MP4
of a refused clip lie beside the record of its failure.
"""

from jobs.media.posters import Posters
from jobs.records.commit import MP4
from jobs.records.keys import latents_key, poster_key, refused_clip_key, thumbnail_key
from jobs.store.store import Store

JPEG = "image/jpeg"
LATENTS = "application/octet-stream"


def write_posters(store: Store, clip_id: str, sha256: str, posters: Posters) -> None:
    """Write poster and thumbnail of an MP4, after the MP4 and before its record.

    Args:
        sha256: digest of the MP4.

    Raises:
        StoreError: when the store refuses or does not answer. Writing again is safe.
    """
    store.put(thumbnail_key(clip_id, sha256), posters.thumbnail, JPEG)
    store.put(poster_key(clip_id, sha256), posters.poster, JPEG)


def write_latents(store: Store, clip_id: str, run_id: str, attempt: int, latents: bytes) -> None:
    """Write latents for inspection, beside the record of their failure."""
    store.put(latents_key(clip_id, run_id, attempt), latents, LATENTS)


def write_refused_clip(store: Store, clip_id: str, run_id: str, attempt: int, body: bytes) -> None:
    """Write the small MP4 of a refused clip, beside the record of its failure."""
    store.put(refused_clip_key(clip_id, run_id, attempt), body, MP4)
