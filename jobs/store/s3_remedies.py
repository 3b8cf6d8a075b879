"""The likely cause of each refusal of S3, and the remedy, by S3's code and the verb.

A code alone says little: "AccessDenied" of a listing has other causes than of a write. Decides
nothing about retries; `s3_errors` does.
"""

from collections.abc import Mapping
from typing import Any, Literal

from jobs.text import shown

Verb = Literal["read", "write", "create", "list", "remove"]  # create: a conditional write

MAX_SAID_CHARACTERS = 300
WRITES: tuple[Verb, ...] = ("write", "create")
WRITE_SETTINGS = (
    "store.server_side_encryption, store.sse_kms_key_id, store.storage_class and store.acl"
)
WHEN_REQUIRED = "AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
OTHER_REGION = "the bucket is in another region: set store.region or AWS_DEFAULT_REGION to "
DENIED_WRITE = (
    "these credentials lack s3:PutObject there (or kms:GenerateDataKey on the bucket's key), or "
    "the bucket's policy demands what this write does not carry, such as encryption "
    "(store.server_side_encryption, store.sse_kms_key_id) or an ACL (store.acl)"
)
# Codes whose cause is the same for every verb.
REMEDIES = {
    "NoSuchBucket": "create the bucket or correct the output URI",
    "InvalidBucketName": "correct the output URI",
    "AllAccessDisabled": "the account that owns the bucket is disabled",
    "AccountProblem": "the account that owns the bucket is disabled",
    "InvalidAccessKeyId": "correct AWS_ACCESS_KEY_ID, which the endpoint does not know",
    "SignatureDoesNotMatch": (
        "correct AWS_SECRET_ACCESS_KEY, which does not belong to the access key; or a proxy "
        "before the endpoint changes the request's Host or path"
    ),
    "InvalidToken": "renew AWS_SESSION_TOKEN, or unset it",
    "RequestTimeTooSkewed": (
        "this machine's clock and the store's are too far apart: set this machine's clock"
    ),
    "PermanentRedirect": OTHER_REGION,
    "AuthorizationHeaderMalformed": OTHER_REGION,
    "IllegalLocationConstraintException": OTHER_REGION,
    "NotImplemented": "the endpoint lacks this operation; use another one",
    "MethodNotAllowed": (
        "the endpoint does not take this request; a website or a CDN before the bucket does not"
    ),
    "QuotaExceeded": "the quota of the bucket or of its user is used up: free space or raise it",
    "InvalidPayer": "set store.request_payer=requester, since the bucket's requester pays",
}  # fmt: skip
REMEDIES_OF_VERB: dict[tuple[Verb, str], str] = {
    ("read", "AccessDenied"): (
        "these credentials lack s3:GetObject there (or kms:Decrypt on the object's key), or the "
        "bucket's requester pays (store.request_payer)"
    ),
    ("write", "AccessDenied"): DENIED_WRITE,
    ("create", "AccessDenied"): DENIED_WRITE,
    ("list", "AccessDenied"): (
        "these credentials lack s3:ListBucket on the bucket, or a condition on s3:prefix allows "
        "it for other prefixes alone, or the bucket's requester pays (store.request_payer)"
    ),
    ("remove", "AccessDenied"): (
        "these credentials lack s3:DeleteObject there, or the object is locked (retention, legal "
        "hold)"
    ),
    ("read", "InvalidObjectState"): (
        "the object is archived: restore it, and keep lifecycle rules away from this output"
    ),
    ("create", "NotImplemented"): (
        "the endpoint has no conditional writes (If-None-Match), which the commit needs, or lacks "
        f"what the write asks for ({WRITE_SETTINGS}; checksums, unless {WHEN_REQUIRED})"
    ),
    ("write", "NotImplemented"): (
        f"the endpoint lacks what the write asks for: {WRITE_SETTINGS}; or checksums, which "
        f"{WHEN_REQUIRED} leaves out"
    ),
    ("write", "EntityTooLarge"): "it is larger than the endpoint takes at once; raise its limit",
    **{
        (verb, code): remedy
        for verb in WRITES
        for code, remedy in {
            "AccessControlListNotSupported": (
                "the bucket has ACLs disabled: unset store.acl, and grant access by its policy"
            ),
            "InvalidStorageClass": "the endpoint has no such class: correct store.storage_class",
            "InvalidEncryptionAlgorithmError": "correct store.server_side_encryption",
            "InvalidArgument": (
                "the endpoint refuses a value that the write carries: If-None-Match (conditional "
                f"writes), {WRITE_SETTINGS}"
            ),
            "InvalidRequest": (
                f"the endpoint refuses a header of the write: a checksum ({WHEN_REQUIRED} leaves "
                "it out; a bucket with Object Lock demands it), If-None-Match (conditional "
                f"writes), {WRITE_SETTINGS}"
            ),
        }.items()
    },
}
KNOWN_CODES = frozenset(REMEDIES) | {code for _, code in REMEDIES_OF_VERB}
# Codes that begin so are about the key that encrypts.
KMS = "KMS."
KMS_REMEDY = "the key that encrypts is missing or disabled: correct store.sse_kms_key_id, or enable"
# The statuses that a server or a proxy gives without S3's code to a request that it never takes.
PERMANENT_STATUSES = {
    405: "the server does not take such requests; it may be no S3 endpoint, or a read-only one",
    411: "the server wants the length of each body, which boto3 sends and a proxy may drop",
    413: (
        "the body is larger than the server, or a proxy before it, takes; raise its limit (nginx: "
        "client_max_body_size)"
    ),
    501: "the server does not know such requests; it may be no S3 endpoint",
}


def remedy_for(verb: Verb, code: str, answer: Mapping[str, Any]) -> str | None:
    """Return the likely cause of a refusal with its remedy; None for a code that is not known.

    Args:
        answer: botocore's dictionary of the error, for the region that it may name.
    """
    if code.startswith(KMS):
        return f"{KMS_REMEDY} it"
    found = REMEDIES_OF_VERB.get((verb, code)) or REMEDIES.get(code)
    if found == OTHER_REGION:
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        region = headers.get("x-amz-bucket-region") or answer.get("Error", {}).get("Region")
        return found + (shown(region) if isinstance(region, str) else "it")
    return found


def said(answer: Mapping[str, Any]) -> str:
    """Return S3's own message in a form that a message can end with, or ""."""
    text = answer.get("Error", {}).get("Message", "")
    if not isinstance(text, str) or not text.strip():
        return ""
    return f"; its message: {shown(' '.join(text.split()), MAX_SAID_CHARACTERS)}"
