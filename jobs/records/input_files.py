"""The images and videos of clips in the store, each under the digest of its bytes.

A run writes those of a pending clip before a worker gets it, and workers read them. One object
serves all clips that begin with the same content, so that `gc` removes it only if none is left.
"""

import hashlib
from contextlib import suppress

from jobs.errors import InputError, ObjectExistsError, ObjectMissingError
from jobs.media.input_videos import MAX_VIDEO_BYTES
from jobs.records.keys import input_key
from jobs.store.store import Store

CONTENT_TYPE = "application/octet-stream"  # no browser shows a stranger's file as a page


def write_input(store: Store, sha256: str, content: bytes) -> None:
    """Write an image or a video unless the store holds it.

    Raises:
        StoreError: the store does not answer or refuses; calling again is safe.
    """
    with suppress(ObjectExistsError):
        store.put_if_absent(input_key(sha256), content, CONTENT_TYPE)


def read_input(store: Store, sha256: str) -> bytes:
    """Return the bytes of an image or a video, which are those of its digest.

    Raises:
        InputError: it is missing, or has other bytes.
        StoreError: the store does not answer or refuses.
    """
    key, content = input_key(sha256), bytearray()
    try:
        for part in store.chunks(key):
            content += part
            if len(content) > MAX_VIDEO_BYTES:
                break
    except ObjectMissingError as error:
        raise InputError(
            f"{store.uri_of(key)} is gone, with which the clip begins; run it again, which "
            "uploads it again"
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(
            f"{store.uri_of(key)} has other bytes than those of its digest; remove it and run it "
            "again, which uploads it again"
        )
    return bytes(content)
