"""Links that let whoever has them read an object of S3 for some time, without credentials.

Decides that they are signed by version 4, which every endpoint takes, and has an end.
"""

from collections.abc import Callable
from urllib.parse import quote

from botocore.config import Config

from jobs.errors import RefusedError
from jobs.store.s3_connection import connect, new_session
from jobs.store.s3_errors import s3_errors
from jobs.store.s3_store import S3Store
from jobs.store.store import Store
from jobs.text import duration

MAX_VALID_S = 7 * 86_400.0  # the most that version 4 allows
SIGNATURE = "X-Amz-Signature="


def presigned_links(store: Store, valid_s: float) -> tuple[str, Callable[[str], tuple[str, str]]]:
    """Return the address of an output, and a function that signs a key.

    The link of a key is the address, the key, "?", the query and the signature. No request is made.

    Args:
        valid_s: seconds for which a link works; with temporary credentials it ends with them.

    Raises:
        RefusedError: the output is a folder, or the time is too long.
        StoreRefusedError: the environment names no credentials, or unusable ones.
    """
    if not isinstance(store, S3Store):
        raise RefusedError(f"{store.uri} is a folder; only objects of S3 can have presigned links")
    if not 1 <= valid_s <= MAX_VALID_S:
        raise RefusedError(
            f"a presigned link works for at most {duration(MAX_VALID_S)} and at least 1 s, not "
            f"{duration(valid_s)}"
        )
    connection = connect(store.config)
    with s3_errors("read", store.uri):
        settings = connection.client.meta.config.merge(Config(signature_version="s3v4"))
        client = new_session(connection.client.meta.region_name).client(
            "s3", endpoint_url=connection.client.meta.endpoint_url, config=settings
        )
    location = store.location
    own = f"{location.prefix}/" if location.prefix else ""

    def url_of(key: str) -> str:
        with s3_errors("read", store.uri):
            wanted = {"Bucket": location.bucket, "Key": own + key}
            return client.generate_presigned_url("get_object", wanted, ExpiresIn=int(valid_s))

    def sign(key: str) -> tuple[str, str]:
        query, _, signature = url_of(key).partition("?")[2].rpartition(SIGNATURE)
        return f"{query}{SIGNATURE}", signature

    probe = "report/index.html"
    base = url_of(probe).partition("?")[0].removesuffix(quote(probe))
    return base, sign
