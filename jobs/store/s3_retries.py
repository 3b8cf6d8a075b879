"""The number of requests to S3 that this process has sent again. Loads without boto3."""

import threading
from typing import Any

_lock = threading.Lock()
_num_retries = 0


def num_s3_retries() -> int:
    """Return the number of requests so far that were not the first try."""
    return _num_retries


def count_retry(request: Any, **_: object) -> None:
    """Count a request that botocore is about to send, if it is not the first try.

    Args:
        request: botocore's request; it calls this for each try.
    """
    global _num_retries  # noqa: PLW0603 of the process, as its clients are
    if request.context.get("retries", {}).get("attempt", 1) > 1:
        with _lock:
            _num_retries += 1
