"""The meaning of an answer of S3, and the remedy for each.

Every answer and every error of botocore becomes one of the store's errors: an outage, which may
pass; one that newer credentials would cure; or a refusal with its remedy. S3 explains a refusal by
a code in XML. An answer without one was not S3's: a proxy or a gateway on the way gave it, or the
endpoint is another server. It proves nothing about an object, and is an outage unless its status is
one of a request that the server never takes. `s3_remedies` has the likely causes of refusals,
`s3_store` sends the requests; `s3_credentials` has the credentials that sign them.
"""

import contextlib
import re
import ssl
from collections.abc import Generator, Mapping
from typing import Any
from urllib.parse import urlsplit

import botocore.exceptions as aws
import urllib3.exceptions
from botocore.parsers import ResponseParserError

from jobs.errors import (
    CredentialsExpiredError,
    ObjectExistsError,
    ObjectMissingError,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
)
from jobs.store.s3_remedies import PERMANENT_STATUSES, WHEN_REQUIRED, Verb, remedy_for, said

CODE = re.compile(r"[A-Za-z][A-Za-z0-9.]{0,63}")
CONDITION_FAILED = 412  # this status alone says enough; the commit then reads what lies there
# Answers that mean something for one verb alone; elsewhere the store contradicts itself.
MEANINGS: dict[tuple[Verb, str], type[StoreError]] = {
    ("read", "NoSuchKey"): ObjectMissingError,
    ("remove", "NoSuchKey"): ObjectMissingError,
    ("create", "PreconditionFailed"): ObjectExistsError,
}
MISPLACED_CODES = frozenset(code for _, code in MEANINGS)
PASSING_CODES = frozenset({
    "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling",
    "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "OperationAborted",
    "ConditionalRequestConflict", "TemporaryRedirect",
})  # fmt: skip
# The body was damaged on its way, or the endpoint misreads the checksums of newer clients.
DAMAGE_CODES = frozenset(
    {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody"}
)
# The credentials were valid and have expired. A person or a service renews them, even at night.
EXPIRED_CODES = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
)
# The store refuses the sender, not the request.
CREDENTIAL_CODES = EXPIRED_CODES | {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"}
# The source of credentials gives none just now: a role's service is down, or a sign-in has expired.
UNRENEWED_CREDENTIALS = (
    aws.CredentialRetrievalError, aws.TokenRetrievalError, aws.UnauthorizedSSOTokenError,
    aws.SSOTokenLoadError,
)  # fmt: skip
CONNECTION_ERRORS = (
    aws.ConnectionError, aws.HTTPClientError, aws.IncompleteReadError, aws.FlexibleChecksumError,
    aws.ResponseStreamingError,
    OSError,  # a socket's, or that of a program that hands out credentials
    urllib3.exceptions.HTTPError,  # botocore lets it through if the body of a refusal breaks off
)  # fmt: skip
# Botocore raises Python's own errors at an answer that it did not foresee: an element that is
# missing, a number or a date that is none, redirects in a circle (a RuntimeError).
UNREADABLE_ANSWERS = (
    aws.BotoCoreError, ResponseParserError, ArithmeticError, AssertionError, AttributeError,
    LookupError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


@contextlib.contextmanager
def s3_errors(verb: Verb, where: str) -> Generator[None]:
    """Turn the errors of a request into the store's, with the remedy; botocore's are the cause."""
    cannot = f"cannot {verb} {where}"
    try:
        yield
    except aws.ClientError as error:
        raise store_error(error, verb, where) from error
    except (aws.NoCredentialsError, aws.PartialCredentialsError) as error:
        raise StoreRefusedError(f"{cannot}: {missing_credentials(error)}") from error
    except UNRENEWED_CREDENTIALS as error:
        raise CredentialsExpiredError(f"{cannot}: {unrenewed_credentials(error)}") from error
    except aws.SSLError as error:
        raise StoreUnavailableError(
            f"{cannot}: no TLS connection to the endpoint ({tls_reason(error)}); check that "
            "store.endpoint_url or AWS_ENDPOINT_URL begins with https:// only if the endpoint has "
            "TLS, and that AWS_CA_BUNDLE names the certificates that it is signed with"
        ) from error
    except CONNECTION_ERRORS as error:
        is_proxy = isinstance(error, aws.ProxyConnectionError)
        also = ", HTTPS_PROXY and HTTP_PROXY" if is_proxy else ""
        raise StoreUnavailableError(
            f"{cannot}: no answer from the endpoint{host_of(error)} ({type(error).__name__}); "
            f"check the network, store.endpoint_url and AWS_ENDPOINT_URL{also}"
        ) from error
    except UNREADABLE_ANSWERS as error:
        raise strange_answer(verb, where, f"boto3 cannot read it ({type(error).__name__})") from (
            error
        )


def store_error(error: aws.ClientError, verb: Verb, where: str) -> StoreError:
    """Return the store's error for an answer of S3."""
    code = code_of(error)
    metadata = error.response.get("ResponseMetadata", {})
    status = metadata.get("HTTPStatusCode", 0)
    cannot = f"cannot {verb} {where}"
    if verb == "create" and status == CONDITION_FAILED:
        code = "PreconditionFailed"
    if meaning := MEANINGS.get((verb, code)):
        is_missing = meaning is ObjectMissingError
        return meaning(f"{where} {'does not exist' if is_missing else 'exists already'}")
    if code in EXPIRED_CODES:
        return CredentialsExpiredError(
            f"{cannot}: the store answers {code}; renew the session's credentials, in the file or "
            "role that they come from"
        )
    if passing := _passing(verb, code, status):
        return StoreUnavailableError(f"{cannot}: the store answers {code}{passing}")
    if refusal := _refusal(verb, code, error.response):
        return StoreRefusedError(f"{cannot}: {refusal}")
    to = target_of(metadata.get("HTTPHeaders", {}).get("location", ""))
    about = f", a redirect{to}" if 300 <= status < 400 else ""
    why = f"{code} does not fit the request" if code else "it has no error code of S3"
    return strange_answer(verb, where, f"{status}{about}; {why}")


def _passing(verb: Verb, code: str, status: int) -> str | None:
    """Return the rest of the message for an answer that may pass; None for any other."""
    if code in DAMAGE_CODES:
        return (
            ": the body was damaged on its way; if every write ends so, the endpoint or a proxy "
            f"misreads checksums, which {WHEN_REQUIRED} leaves out"
        )
    is_overload = status == 429 or (status >= 500 and status not in PERMANENT_STATUSES)
    if code in PASSING_CODES or (code and is_overload and remedy_for(verb, code, {}) is None):
        return ", also after retries"
    return None


def _refusal(verb: Verb, code: str, answer: Mapping[str, Any]) -> str | None:
    """Return the text for an answer that no retry changes; None for any other."""
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    remedy = remedy_for(verb, code, answer)
    is_refusal = 400 <= status < 500 or status in PERMANENT_STATUSES
    if remedy or (code and code not in MISPLACED_CODES and is_refusal):
        remedy = remedy or "see the store's documentation of this code"
        its_message = "" if code in CREDENTIAL_CODES else said(answer)
        return f"the store answers {code}; {remedy}{its_message}"
    if not code and status in PERMANENT_STATUSES:
        return f"the answer is {status} without a code of S3; {PERMANENT_STATUSES[status]}"
    return None


def missing_credentials(error: aws.BotoCoreError) -> str:
    """Return the text and remedy for credentials that are not there or not whole."""
    remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role"
    if isinstance(error, aws.PartialCredentialsError):
        return f"no usable credentials, since {error.kwargs['cred_var']} is missing; {remedy}"
    return f"no usable credentials; {remedy}"


def unrenewed_credentials(error: aws.BotoCoreError) -> str:
    """Return the text and remedy for a role or a sign-in that gives no credentials just now."""
    return (
        f"no credentials are handed out ({type(error).__name__}); sign in again, or repair the "
        "role or process that gives them"
    )


def tls_reason(error: aws.SSLError) -> str:
    """Return OpenSSL's own word for a failed handshake, such as CERTIFICATE_VERIFY_FAILED."""
    reason = error.kwargs.get("error")
    while isinstance(reason, BaseException):
        if isinstance(reason, ssl.SSLError) and reason.reason:
            return reason.reason
        reason = getattr(reason, "reason", None) or reason.__cause__ or reason.__context__
    return type(error).__name__


def strange_answer(verb: Verb, where: str, reason: str) -> StoreUnavailableError:
    """Return the error for an answer that S3 would not give."""
    return StoreUnavailableError(
        f"cannot {verb} {where}: the answer is not S3's: {reason}; a proxy or gateway may have "
        "given it; check that store.endpoint_url or AWS_ENDPOINT_URL is the address of an S3 "
        "endpoint, with the right https:// or http://"
    )


def host_of(error: Exception) -> str:
    """Return the server that gave no answer: with virtual addressing, the bucket is in its name."""
    url = error.kwargs.get("endpoint_url") if isinstance(error, aws.BotoCoreError) else None
    return target_of(url).removeprefix(" to") if isinstance(url, str) else ""


def target_of(location: str) -> str:
    """Return the server that a redirect names, for a message; nothing else of its address."""
    try:
        parts = urlsplit(location)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    return f" to {parts.scheme}://{parts.hostname[:255]}{port}"


def code_of(error: aws.ClientError) -> str:
    """Return S3's own code, or "" for an answer that has none.

    botocore puts the status in its place.
    """
    code = error.response.get("Error", {}).get("Code", "")
    return code if isinstance(code, str) and CODE.fullmatch(code) else ""
