"""The webhook: one POST of a JSON body, by HTTP or HTTPS, without redirects.

The URL is a secret: a person who has it can write to the channel. It comes from the environment,
and no error, log or record holds it or a part of its path.
"""

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Self
from urllib.parse import urlsplit

from jobs.errors import NotificationError, WebhookRefusedError
from jobs.redaction import redact
from jobs.settings.run_config import NotifyConfig

PASSING = frozenset({408, 425, 429})  # with those from 500 on; others would be the same again


class Webhook:
    """A place that takes messages. Not a dataclass, since its `repr` would show the URL.

    Args:
        url: the URL, with http:// or https://.
        timeout_s: seconds without an answer after which a try has failed.

    Raises:
        WebhookRefusedError: the URL has another scheme, or no host.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        try:
            parts = urlsplit(url)
            is_known = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            is_known = False
        if not is_known or not url.isascii() or not url.isprintable() or " " in url:
            raise WebhookRefusedError("expected a URL that begins with https:// or http://")
        self._url = url
        self._timeout_s = timeout_s
        self._opener = urllib.request.OpenerDirector()  # with no handler of redirects or files
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):
            self._opener.add_handler(handler)

    @classmethod
    def of(cls, config: NotifyConfig, environment: Mapping[str, str]) -> Self | None:
        """Return the webhook of an environment; None if its variable is unset or empty."""
        url = environment.get(config.webhook_variable, "").strip()
        return cls(url, config.timeout_s) if url else None

    def post(self, body: bytes) -> None:
        """Send a JSON document.

        Raises:
            WebhookRefusedError: it would be refused again.
            NotificationError: it was not taken; another try may help.
        """
        headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "nagfarm"}
        request = urllib.request.Request(self._url, body, headers, method="POST")  # noqa: S310
        try:
            self._opener.open(request, timeout=self._timeout_s).close()
        except urllib.error.HTTPError as error:
            error.close()
            passes = error.code in PASSING or error.code >= 500
            kind = NotificationError if passes else WebhookRefusedError
            raise kind(f"the webhook answered {error.code}") from None
        except urllib.error.URLError as error:
            raise self._unreachable(error.reason) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._unreachable(error) from None

    def _unreachable(self, reason: object) -> NotificationError:
        match reason:
            case TimeoutError():
                text = f"the webhook did not answer within {self._timeout_s:g} s"
            case OSError(strerror=str(text)):
                text = f"the webhook cannot be reached: {text}"
            case _:  # its text may hold a part of the URL
                text = f"the webhook cannot be reached: {type(reason).__name__}"
        # ValueError: a host that cannot be a name, or a wrong proxy of the environment
        is_malformed = isinstance(reason, http.client.InvalidURL | ValueError)
        return (WebhookRefusedError if is_malformed else NotificationError)(redact(text))
