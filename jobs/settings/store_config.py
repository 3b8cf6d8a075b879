"""The settings of S3: where it is, how it is asked, and what every write carries.

A value of None leaves the matter to boto3's own variables and files, or to the bucket. Loads
without torch.
"""

import math
import re
from dataclasses import dataclass, replace
from typing import Any, Self

from jobs.errors import ConfigError

HEADER_VALUE = re.compile(r"[!-~]+")
CHOICES = {
    "addressing_style": ("auto", "path", "virtual"),
    "server_side_encryption": ("AES256", "aws:kms", "aws:kms:dsse"),
    "acl": (
        "private", "public-read", "public-read-write", "authenticated-read", "aws-exec-read",
        "bucket-owner-read", "bucket-owner-full-control",
    ),
    "request_payer": ("requester",),
}  # fmt: skip
OF_WRITES = (
    "server_side_encryption", "sse_kms_key_id", "bucket_key_enabled", "storage_class", "acl",
)  # fmt: skip
ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")  # their objects cannot be read without being restored


@dataclass(frozen=True)
class StoreConfig:
    """The connection to S3. Credentials come from the environment or the instance's role alone.

    Args:
        endpoint_url: URL of the S3 server; None takes AWS_ENDPOINT_URL, or else AWS itself.
        addressing_style: `virtual` puts the bucket into the host's name, `path` behind it, `auto`
            leaves the choice to boto3; None takes `addressing_style` of AWS's configuration file,
            or else `auto` on AWS and `path` on every other endpoint.
        server_side_encryption, sse_kms_key_id, bucket_key_enabled: the encryption that every write
            asks for; None leaves it to the bucket.
        storage_class, acl: the storage class and the canned ACL of every object written.
        request_payer: `requester` accepts the costs of a bucket whose requester pays.
        max_attempts: tries of one request by botocore's adaptive retry. An endpoint that accepts
            connections and never answers holds a request for that many times `read_timeout_s`.
        lease_s: seconds for which a driver takes the lease of an output. It renews the lease in
            time while it lives, and no other driver renders into that output.
    """

    endpoint_url: str | None = None
    region: str | None = None
    addressing_style: str | None = None
    server_side_encryption: str | None = None
    sse_kms_key_id: str | None = None
    bucket_key_enabled: bool | None = None
    storage_class: str | None = None
    acl: str | None = None
    request_payer: str | None = None
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 60.0
    max_attempts: int = 8
    lease_s: float = 60.0

    def __post_init__(self) -> None:
        self._check_endpoint()
        self._check_writes()
        check_at_least("store", self, 1, "max_attempts")
        if not (self.connect_timeout_s > 0 and self.read_timeout_s > 0):
            raise ConfigError("store.connect_timeout_s and store.read_timeout_s must be above 0")
        check_at_least("store", self, 3, "lease_s")

    @property
    def of_writes(self) -> dict[str, Any]:
        """Return the settings that every write carries, without those of None."""
        found = {name: getattr(self, name) for name in OF_WRITES}
        return {name: value for name, value in found.items() if value is not None}

    def with_bare_writes(self) -> Self:
        """Return these settings, with writes that carry none of their own."""
        return replace(self, **dict.fromkeys(self.of_writes))

    def _check_endpoint(self) -> None:
        url = self.endpoint_url
        if url is not None and not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"store.endpoint_url must begin with http:// or https://, got {url!r}"
            )
        if url is not None and "@" in url.partition("://")[2].partition("/")[0]:
            raise ConfigError(
                "store.endpoint_url holds a password; give credentials in the environment instead"
            )

    def _check_writes(self) -> None:
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ConfigError(f"store.{name} must be one of {', '.join(known)}, got {value!r}")
        for name in ("storage_class", "sse_kms_key_id"):
            value = getattr(self, name)
            if value is not None and not HEADER_VALUE.fullmatch(value):
                raise ConfigError(f"store.{name} must be ASCII without blanks, got {value!r}")
        if self.storage_class in ARCHIVES:
            raise ConfigError(
                f"store.storage_class must not be an archive, got {self.storage_class}: a run "
                "reads its records; let a lifecycle rule archive clips/ after the run"
            )
        is_kms = (self.server_side_encryption or "").startswith("aws:kms")
        for name in ("sse_kms_key_id", "bucket_key_enabled"):
            if getattr(self, name) is not None and not is_kms:
                raise ConfigError(f"store.{name} needs store.server_side_encryption=aws:kms")


def check_at_least(section: str, config: object, least: float, *names: str) -> None:
    """Raise ConfigError if a value of a section is below `least` or not finite; None may pass."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not (value >= least and math.isfinite(value)):
            raise ConfigError(f"{section}.{name} must be at least {least}, got {value}")
