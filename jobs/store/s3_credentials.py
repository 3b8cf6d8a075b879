"""The credentials that sign the requests to S3, and when they are read anew.

Credentials that the store refuses are looked up once more, in the files and services where boto3
finds them, and a request goes out again only with other credentials. An error that the same
credentials would meet again is left unchanged; `s3_errors` says what it means.
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import botocore.exceptions as aws

from jobs.errors import StoreError
from jobs.store.s3_connection import Connection
from jobs.store.s3_errors import CREDENTIAL_CODES, code_of

T = TypeVar("T")


class RotatingConnection:
    """A connection that outlives its credentials. Safe to use from several threads.

    Args:
        connect: makes a new connection, reading configuration and environment from the beginning.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._current = connect()
        self._renewal = threading.Lock()

    @property
    def client(self) -> Any:
        return self._current.client

    def send(self, request: Callable[[Any], T]) -> T:
        """Make a request; repeat it once if its credentials were refused and others are found.

        Args:
            request: does the whole request with the given client; it may be called twice.

        Raises:
            ClientError, BotoCoreError: as botocore raises them.
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
        """Return a connection with other credentials, or the refused one if none are found yet."""
        with self._renewal:
            if self._current is not refused:  # another thread was refused and has renewed it
                return self._current
            try:
                fresh = self._connect()
                if fresh.credentials is None or fresh.signs_as(refused):
                    return refused
            except (StoreError, aws.BotoCoreError):
                # a file may be half written just now; the first refusal says what to do
                return refused
            self._current = fresh
            return fresh
