"""The meaning of S3's refusals, and the remedy for each.

Every code that S3 answers and every error that botocore raises becomes one of the store's errors:
one that may pass, one that newer credentials would cure, or a refusal with its remedy. `s3_store`
sends the requests; `s3_credentials` has the credentials that sign them.
"""

import contextlib
from collections.abc import Generator

import botocore.exceptions as aws
import urllib3.exceptions

from jobs.errors import (
    CredentialsExpiredError,
    ObjectExistsError,
    ObjectMissingError,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
)

MISSING_CODES = frozenset({"NoSuchKey", "404", "NotFound"})
EXISTS_CODES = frozenset({"PreconditionFailed", "412"})
PASSING_CODES = frozenset({
    "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling",
    "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "OperationAborted",
    "ConditionalRequestConflict",
    "BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody",  # damaged on the way
})  # fmt: skip
# The credentials were valid and have expired. A person or a service renews them, even at night.
EXPIRED_CODES = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
)
# The store refuses the sender, not the request.
CREDENTIAL_CODES = EXPIRED_CODES | {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"}
REMEDIES = {
    "NoSuchBucket": "create the bucket or correct the output URI",
    "InvalidBucketName": "correct the output URI",
    "AccessDenied": (
        "allow these credentials s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject on "
        "it"
    ),
    "AllAccessDisabled": "the account that owns the bucket is disabled",
    "InvalidAccessKeyId": "correct AWS_ACCESS_KEY_ID, which the endpoint does not know",
    "SignatureDoesNotMatch": (
        "correct AWS_SECRET_ACCESS_KEY, which does not belong to the access key"
    ),
    "InvalidToken": "renew AWS_SESSION_TOKEN, or unset it",
    "RequestTimeTooSkewed": "set this machine's clock",
    "PermanentRedirect": "set store.region or AWS_DEFAULT_REGION to the bucket's region",
    "AuthorizationHeaderMalformed": "set store.region or AWS_DEFAULT_REGION to the bucket's region",
    "NotImplemented": "the endpoint lacks an operation that the commit needs; use another one",
    "403": "check the credentials and their rights on the bucket",
    "400": "check the credentials, the region and the endpoint",
}
MISSING_CREDENTIALS = (
    aws.NoCredentialsError, aws.PartialCredentialsError, aws.ProfileNotFound, aws.ConfigParseError,
)  # fmt: skip
# The source of credentials gives none just now: a role's service is down, or a sign-in has expired.
UNRENEWED_CREDENTIALS = (
    aws.CredentialRetrievalError, aws.TokenRetrievalError, aws.UnauthorizedSSOTokenError,
    aws.SSOTokenLoadError,
)  # fmt: skip
CONNECTION_ERRORS = (
    aws.ConnectionError, aws.HTTPClientError, aws.IncompleteReadError, aws.FlexibleChecksumError,
    aws.ResponseStreamingError,
    urllib3.exceptions.HTTPError,  # botocore lets it through if the body of a refusal breaks off
)  # fmt: skip


@contextlib.contextmanager
def s3_errors(doing: str, where: str) -> Generator[None]:
    """Turn botocore's errors into the store's, with the remedy; botocore's text is the cause."""
    try:
        yield
    except aws.ClientError as error:
        raise store_error(error, doing, where) from error
    except MISSING_CREDENTIALS as error:
        raise StoreRefusedError(
            f"cannot {doing} {where}: no usable credentials; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, a profile or a role"
        ) from error
    except UNRENEWED_CREDENTIALS as error:
        raise CredentialsExpiredError(
            f"cannot {doing} {where}: no credentials are handed out ({type(error).__name__}); sign "
            "in again, or repair the role or process that gives them"
        ) from error
    except CONNECTION_ERRORS as error:
        raise StoreUnavailableError(
            f"cannot {doing} {where}: no answer from the endpoint ({type(error).__name__}); check "
            "the network, store.endpoint_url and AWS_ENDPOINT_URL"
        ) from error
    except aws.BotoCoreError as error:
        raise StoreRefusedError(
            f"cannot {doing} {where}: boto3 refuses the request ({type(error).__name__})"
        ) from error


def store_error(error: aws.ClientError, doing: str, where: str) -> StoreError:
    """Return the store's error for an answer of S3."""
    code = code_of(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in MISSING_CODES:
        return ObjectMissingError(f"{where} does not exist")
    if code in EXISTS_CODES:
        return ObjectExistsError(f"{where} exists already")
    if code in EXPIRED_CODES:
        return CredentialsExpiredError(
            f"cannot {doing} {where}: the store answers {code}; renew the session's credentials, "
            "in the file or role that they come from"
        )
    if code in PASSING_CODES or status >= 500 or status == 429:
        return StoreUnavailableError(
            f"cannot {doing} {where}: the store answers {code}, also after retries; try later"
        )
    remedy = (
        REMEDIES.get(code)
        or REMEDIES.get(str(status))
        or "see the store's documentation of this code"
    )
    return StoreRefusedError(f"cannot {doing} {where}: the store answers {code}; {remedy}")


def code_of(error: aws.ClientError) -> str:
    """Return S3's own code; for a HEAD, whose answer has no body, the status."""
    return error.response.get("Error", {}).get("Code", "unknown")
