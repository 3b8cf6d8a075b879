"""A client for S3 from the configuration and the environment, or a refusal that names the fault.

No request goes to S3 here. Only what can never work is refused: a profile that does not exist, a
file that cannot be parsed, an endpoint that is not a URL, credentials with a character that no
credentials have. `s3_errors` has the meaning of answers, `s3_credentials` the renewal.
"""

import contextlib
import functools
import re
from collections.abc import Generator, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore
import botocore.exceptions as aws
import botocore.session
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.utils import determine_content_length

from jobs.errors import StoreRefusedError
from jobs.settings.run_config import StoreConfig
from jobs.store.s3_errors import UNRENEWED_CREDENTIALS, missing_credentials, unrenewed_credentials
from jobs.store.s3_listing import read_time
from jobs.store.s3_retries import count_retry
from jobs.text import shown

CREDENTIAL = re.compile(r"[!-~]+")  # goes into a header, and into a signature
# botocore would put its own together from 16 parts, twice for each request
USER_AGENT = f"nagfarm Boto3/{boto3.__version__} Botocore/{botocore.__version__}"
SMALL_BODY_BYTES = 16 * 1024
CREDENTIAL_VARIABLES = {
    "access_key": "AWS_ACCESS_KEY_ID",
    "secret_key": "AWS_SECRET_ACCESS_KEY",
    "token": "AWS_SESSION_TOKEN",
}
# boto3's names of the settings that every write carries
NAMES_OF_WRITES = {
    "server_side_encryption": "ServerSideEncryption",
    "sse_kms_key_id": "SSEKMSKeyId",
    "bucket_key_enabled": "BucketKeyEnabled",
    "storage_class": "StorageClass",
    "acl": "ACL",
}


@dataclass(frozen=True, eq=False)
class Connection:
    """A boto3 client and the credentials with which it signs.

    Args:
        credentials: None if boto3 found none; a store never refuses unsigned requests for their
            credentials.
    """

    client: Any
    credentials: Any

    def signs_as(self, other: "Connection") -> bool:
        """Return True if both sign with the same key, secret and token at this moment."""
        return (
            self.credentials.get_frozen_credentials() == other.credentials.get_frozen_credentials()
        )


def connect(config: StoreConfig) -> Connection:
    """Return a boto3 client for S3, its credentials looked up anew.

    Threads may share it. No request goes to S3 yet.

    Raises:
        StoreRefusedError: configuration or environment name an unusable profile, file, region or
            endpoint, or credentials that should exist are not handed out or cannot be right.
    """

    def client(**of_s3: Any) -> Any:
        settings = Config(
            connect_timeout=config.connect_timeout_s,
            read_timeout=config.read_timeout_s,
            retries={"mode": "adaptive", "total_max_attempts": config.max_attempts},
            user_agent=USER_AGENT,
            s3=of_s3,
        )
        return session.client("s3", endpoint_url=config.endpoint_url, config=settings)

    with _configuration_errors():
        session = new_session(config.region)
        found = client()
        endpoint = check_endpoint(found.meta.endpoint_url)
        # the file of AWS_CONFIG_FILE, which boto3 has merged into the settings
        merged: dict[str, Any] = found.meta.config.s3 or {}
        of_s3: dict[str, Any] = {}
        style = config.addressing_style or merged.get("addressing_style")
        if style is None and not endpoint.endswith((".amazonaws.com", ".amazonaws.com.cn")):
            style = "path"  # few private endpoints have a host name for each bucket
        if style is not None:
            of_s3["addressing_style"] = style
        if (
            sends_checksums(found)
            and found.meta.endpoint_url.startswith("http:")
            and "payload_signing_enabled" not in merged
        ):
            # The signature covers the header with the body's SHA-256, which the server checks.
            # Over TLS botocore therefore signs no second digest of the body; nor here.
            of_s3["payload_signing_enabled"] = False
        if of_s3:
            found = client(**of_s3)
        credentials = session.get_credentials()
    check_credentials(credentials)
    # Nothing here sends this request. botocore does, to ask for a bucket's region, when an answer
    # is a redirect; if that answer is one too, it asks again until Python's stack is full.
    found.meta.events.register("before-call.s3.HeadBucket", _answer_without_region)
    found.meta.events.register("request-created.s3", count_retry)
    found.meta.events.register("before-call.s3", send_small_bodies_at_once)
    return Connection(found, credentials)


def sends_checksums(client: Any) -> bool:
    """Return False if boto3 is configured to send a checksum only where S3 requires one."""
    return client.meta.config.request_checksum_calculation != "when_required"


def read_parameters(config: StoreConfig) -> dict[str, str]:
    """Return the parameters that every request has in common."""
    return {"RequestPayer": config.request_payer} if config.request_payer else {}


def write_parameters(config: StoreConfig) -> dict[str, Any]:
    """Return the parameters of every write."""
    return {NAMES_OF_WRITES[name]: value for name, value in config.of_writes.items()}


def new_session(region: str | None) -> boto3.Session:
    """Return a session that reads configuration, environment and credentials from the beginning."""
    core = botocore.session.Session()
    core.register_component("data_loader", api_loader())
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=read_time)
    return boto3.Session(botocore_session=core, region_name=region)


def send_small_bodies_at_once(params: dict[str, Any], **_: object) -> None:
    """Let a small body follow its head, without the server's word (100 Continue) in between.

    botocore waits for that word before each body, which costs a record a round trip. A large body
    still waits, since a server that refuses the head closes the connection, and its answer would
    be lost while the body is sent. A small body fits into the connection's buffers.
    """
    headers: MutableMapping[str, str] = params["headers"]
    if "Expect" in headers:
        num_bytes = determine_content_length(params["body"])
        if num_bytes is not None and num_bytes <= SMALL_BODY_BYTES:
            del headers["Expect"]


@functools.cache
def api_loader() -> Any:
    """Return botocore's description of S3's requests, whose parsing takes most of a session's time.

    The sessions of a process share it: 0.03 s instead of 0.24 s a client.
    """
    return botocore.session.Session().get_component("data_loader")


def check_endpoint(url: str) -> str:
    """Return the host of S3's endpoint.

    Raises:
        ValueError: no request could ever reach this URL.
        StoreRefusedError: it holds a password.
    """
    parts = urlsplit(url)
    is_url = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    if not is_url or not url.isprintable() or " " in url:
        raise ValueError("not a URL of a server")
    if parts.username or parts.password:
        raise StoreRefusedError(
            "S3's endpoint holds a user or password; give credentials in the environment instead"
        )
    return parts.hostname or ""


def check_credentials(credentials: Any) -> None:
    """Refuse fixed credentials that cannot be right, before a store names another cause.

    Raises:
        StoreRefusedError: one holds a blank, a line end or another character that none has.
    """
    if type(credentials) is not Credentials:  # others would be fetched from their service now
        return
    for name, variable in CREDENTIAL_VARIABLES.items():
        value = getattr(credentials, name)
        if value is not None and not CREDENTIAL.fullmatch(value):
            bad = shown(next((one for one in value if not CREDENTIAL.fullmatch(one)), ""))
            raise StoreRefusedError(
                f"{variable} is empty or holds the character {bad}, which credentials never have; "
                "correct it in the environment or the file that it comes from (a file with the "
                r"line ends of Windows leaves a '\r')"
            )


@contextlib.contextmanager
def _configuration_errors() -> Generator[None]:
    """Turn the errors of making a client into refusals that name what is wrong."""
    try:
        yield
    except aws.ProfileNotFound as error:
        raise StoreRefusedError(
            f"cannot connect to S3: AWS_PROFILE names the profile "
            f"{shown(error.kwargs['profile'])}, which is in none of AWS's files; correct "
            "AWS_PROFILE or unset it"
        ) from error
    except (aws.ConfigParseError, aws.ConfigNotFound) as error:
        raise StoreRefusedError(
            f"cannot connect to S3: the file {str(error.kwargs['path'])!r} cannot be read as "
            "AWS's configuration; correct it, or name another one in AWS_CONFIG_FILE or "
            "AWS_SHARED_CREDENTIALS_FILE"
        ) from error
    except aws.InvalidRegionError as error:
        raise StoreRefusedError(
            f"cannot connect to S3: {shown(error.kwargs['region_name'])} is not the name of a "
            "region; correct store.region or AWS_DEFAULT_REGION"
        ) from error
    except (aws.NoCredentialsError, aws.PartialCredentialsError) as error:
        raise StoreRefusedError(f"cannot connect to S3: {missing_credentials(error)}") from error
    except UNRENEWED_CREDENTIALS as error:
        raise StoreRefusedError(f"cannot connect to S3: {unrenewed_credentials(error)}") from error
    except ValueError as error:
        raise StoreRefusedError(
            "cannot connect to S3: expected a URL as S3's endpoint, such as https://host:port; "
            "correct store.endpoint_url or AWS_ENDPOINT_URL"
        ) from error
    except (aws.BotoCoreError, OSError) as error:
        raise StoreRefusedError(
            f"cannot connect to S3: boto3 refuses the configuration ({type(error).__name__}: "
            f"{shown(str(error))}); correct AWS's variables and files"
        ) from error


def _answer_without_region(**_: object) -> None:
    raise aws.ClientError({"ResponseMetadata": {"HTTPHeaders": {}}}, "HeadBucket")
