"""The salt of an output, from which the seeds of `seed: random` follow.

The first plan that needs it draws it and writes it under the condition that there is none. So all
plans and runs of one output draw the same seeds, and another output gets others.
"""

import re
import secrets
import time

from jobs.errors import ObjectExistsError, ObjectMissingError, RecordError
from jobs.records.commit import JSON, read_as
from jobs.records.keys import SALT_KEY
from jobs.records.schema import SCHEMA_VERSION, load_versioned, utc_iso
from jobs.records.strict_json import dump
from jobs.store.store import Store

SALT_BYTES = 16


def read_salt(store: Store) -> bytes | None:
    """Return the salt; None if none was drawn yet.

    Raises:
        RecordError: the object is damaged. Another salt would render every such clip again.
        StoreError: the store does not answer, or refuses to read.
    """
    try:
        return read_as(store, SALT_KEY, _parse)
    except ObjectMissingError:
        return None


def keep_salt(store: Store) -> bytes:
    """Return the salt; draw and write it if there is none. Of several writers at once one wins.

    Raises:
        RecordError, StoreError: as `read_salt`, or the store refuses to write.
    """
    if (salt := read_salt(store)) is not None:
        return salt
    drawn = secrets.token_bytes(SALT_BYTES)
    document = {
        "salt": drawn.hex(),
        "drawn_at": utc_iso(time.time()),
        "schema_version": SCHEMA_VERSION,
    }
    try:
        store.put_if_absent(SALT_KEY, dump(document), JSON)
    except ObjectExistsError:  # another plan was faster, or the answer to a first try was lost
        return read_as(store, SALT_KEY, _parse)
    return drawn


def _parse(content: bytes) -> bytes:
    salt = load_versioned(content).get("salt")
    if not (isinstance(salt, str) and re.fullmatch(rf"[0-9a-f]{{{2 * SALT_BYTES}}}", salt)):
        raise RecordError(f"salt must be {2 * SALT_BYTES} lower-case hex digits, not {salt!r}")
    return bytes.fromhex(salt)
