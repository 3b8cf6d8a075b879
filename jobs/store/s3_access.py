"""The proof, before a run, that an output takes everything that a run asks of it.

A refusal of one request says little alone: "access denied" may be a missing right, a policy that
wants encryption, or one that wants no conditional write. So where the first write is refused, other
requests tell what works beside it, and the message says so.
"""

import contextlib
import secrets
from collections.abc import Callable

from botocore.exceptions import ClientError

from jobs.errors import (
    CredentialsExpiredError,
    ObjectExistsError,
    ObjectMissingError,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
)
from jobs.store.s3_errors import DAMAGE_CODES, code_of
from jobs.store.store import Store
from jobs.store.uri import ACCESS_CHECK_PREFIX

BODY, TEXT = b"check", "text/plain"
USE_ANOTHER = "use an endpoint that has conditional writes"


def check_access(store: Store, bare: Store | None = None, asked: str = "") -> None:
    """Write, write again under the condition, read, replace, list and remove.

    Args:
        store: the output.
        bare: the same output, whose writes carry no settings; None if those of `store` carry none
            either.
        asked: the settings of the writes, for a message.

    Raises:
        StoreRefusedError: one of these is not allowed, the credentials have expired, or the
            endpoint ignores the condition.
        StoreUnavailableError: no answer.
    """
    key = f"{ACCESS_CHECK_PREFIX}{secrets.token_hex(8)}"
    try:
        try:
            with contextlib.suppress(ObjectExistsError):  # its own, after a lost answer; see below
                store.put_if_absent(key, BODY, TEXT)
        except CredentialsExpiredError:
            raise
        except (StoreRefusedError, StoreUnavailableError) as error:
            raise _with_its_cause(store, bare, asked, key, error) from error
        try:
            _use(store, key)
        except BaseException:
            with contextlib.suppress(StoreError):
                store.delete(key)
            raise
        store.delete(key)
    except CredentialsExpiredError as error:
        # no work has begun for which waiting for new credentials would be worth it
        raise StoreRefusedError(str(error)) from error


def _use(store: Store, key: str) -> None:
    with contextlib.suppress(ObjectExistsError):
        store.put_if_absent(key, b"again", TEXT)
    try:
        found = store.get(key)
    except ObjectMissingError as error:
        raise StoreRefusedError(
            f"{store.uri}: the endpoint answers a conditional write (If-None-Match) as if an "
            f"object lay there, and none does; {USE_ANOTHER}"
        ) from error
    if found != BODY:
        raise StoreRefusedError(
            f"{store.uri}: the endpoint ignores If-None-Match, without which two workers could "
            f"commit one clip; {USE_ANOTHER}"
        )
    store.put(key, BODY, TEXT)  # an MP4 is written without the condition
    if not store.exists(key):
        raise StoreRefusedError(
            f"{store.uri}: the endpoint does not list an object that was written to it"
        )


def _with_its_cause(
    store: Store, bare: Store | None, asked: str, key: str, error: StoreError
) -> StoreError:
    """Return the error of the first write, with the cause that other requests show.

    An "internal error" is judged, too: some endpoints answer so what they never do.
    """
    if not isinstance(error.__cause__, ClientError):  # no answer came, after minutes perhaps
        return error
    if _allows(store.put, store, key) and not _allows(store.put_if_absent, store, key):
        return StoreRefusedError(
            f"{store.uri}: the endpoint, or the bucket's policy, allows no conditional write "
            "(If-None-Match) and allows the same write without it; two workers could commit one "
            f"clip there; {USE_ANOTHER} ({error})"
        )
    if bare is not None and _allows(bare.put, bare, key):
        return StoreRefusedError(
            f"{store.uri}: a write with {asked} is refused, and the same write without is allowed; "
            f"correct or unset it ({error})"
        )
    if code_of(error.__cause__) in DAMAGE_CODES:
        return StoreRefusedError(str(error))  # five bytes were damaged twice
    if isinstance(error, StoreRefusedError) and _lists(store, key):
        return StoreRefusedError(f"{error}; listing is allowed there, so only writing is not")
    return error


def _allows(write: Callable[[str, bytes, str], None], store: Store, key: str) -> bool:
    try:
        write(key, BODY, TEXT)
    except ObjectExistsError:  # an earlier write, which could not be removed
        return True
    except StoreError:
        return False
    with contextlib.suppress(StoreError):
        store.delete(key)
    return True


def _lists(store: Store, key: str) -> bool:
    try:
        store.exists(key)
    except StoreError:
        return False
    return True
