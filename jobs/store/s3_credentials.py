"""Whose credentials sign the requests to S3, and when they are read anew.

Decides that credentials which the store refuses are looked up once more, in the files and services that boto3 finds
them in, and that a request goes out again only with other ones. An error that the same credentials would meet again
is left as it is; `s3_errors` says what it means.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import botocore.exceptions as aws

from jobs.errors import StoreError
from jobs.store.s3_errors import CREDENTIAL_CODES, code_of, s3_errors

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Connection:
    """A boto3 client, and the credentials that it signs with; None where boto3 found none, which no store refuses."""

    client: Any
    credentials: Any

    def signs_as(self, other: "Connection") -> bool:
        """Whether two sign with the same key, secret and token, at this moment."""
        return (
            self.credentials.get_frozen_credentials() == other.credentials.get_frozen_credentials()
        )


class RotatingConnection:
    """A connection that outlives its credentials. Safe to use from several threads.

    Args:
        connect: reads configuration and environment from the beginning, and makes a new connection of them.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._current = connect()
        self._renewal = threading.Lock()

    @property
    def client(self) -> Any:
        return self._current.client

    def send(self, request: Callable[[Any], T]) -> T:
        """Makes a request, and once more where it is refused for its credentials and others are to be had.

        Args:
            request: given a client, does all of it; it must be able to do so twice.

        Raises:
            botocore's errors.
        """
        used = self._current
        try:
            return request(used.client)
        except aws.ClientError as error:
            if code_of(error) not in CREDENTIAL_CODES:
                raise
            renewed = self._renew(used)
            if renewed is used:
                raise
        return request(renewed.client)

    def _renew(self, refused: Connection) -> Connection:
        """A connection with other credentials, or the refused one where there are none yet."""
        with self._renewal:
            if self._current is not refused:  # another thread was refused, and has been here before
                return self._current
            try:
                with s3_errors("renew the credentials of", "S3"):
                    fresh = self._connect()
                    if fresh.credentials is None or fresh.signs_as(refused):
                        return refused
            except (
                StoreError
            ):  # a file that is being rewritten just now; the refusal itself says what to do
                return refused
            self._current = fresh
            return fresh
