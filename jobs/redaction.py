"""The recognition of secrets in a text, and the mask that replaces them.

Decides which parts of a text a log, a record or an error message must not hold: the values of the
environment's variables that hold secrets, with the forms in which a URL or a `repr` writes them,
and strings that look like a credential wherever they came from. The writers of texts call it:
`worker/` for failures, `cli/` for errors. Imports nothing but the standard library.

`redact` is, after the command line and `store/`, the third place that reads the environment: a
secret is known because a variable of this process holds it at this moment (credentials are
rotated), and a worker's variables differ from the driver's. Values with fewer than eight characters
are not masked: they are not secrets, and masking them would blot out plain words.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

MASK = "[redacted]"
MIN_SECRET_CHARACTERS = 8
MAX_TOKEN_FILE_BYTES = 65_536

SECRET_NAMES = frozenset({"AWS_ACCESS_KEY_ID"})  # names that the endings miss
SECRET_ENDINGS = ("TOKEN", "SECRET", "PASSWORD", "KEY", "WEBHOOK_URL")
TOKEN_PATH_NAME = "RAY_AUTH_TOKEN_PATH"  # noqa: S105 the variable's name

# Stands between a name and its value in a URL, a header, a repr or JSON: `=`, `: `, `': b'`, `%3D`.
# Each quantifier is possessive, or the rest of `b'` before a mask would be taken for a value.
_IS = r"""["']?+\s{0,3}+(?:[=:]|%3D)\s{0,3}+(?:b?["'])?+"""
_PEM_LABEL = "[A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----"
# Each has a fixed beginning and one run of characters that cannot begin it anew, so that a megabyte
# takes milliseconds. The mask replaces the group, or the whole match if the pattern has none.
PATTERNS = (
    re.compile(r"(?:AKIA|ASIA)[A-Z0-9]{16,}"),
    re.compile(
        rf"X-Amz-(?:Signature|Security-Token|Credential){_IS}([^\s&\"'<>,;]+)", re.IGNORECASE
    ),
    re.compile(rf"Authorization{_IS}([^\s\"'][^\r\n\"']*)", re.IGNORECASE),
    re.compile(
        rf"aws_?(?:secret_?access_?key|session_?token){_IS}([A-Za-z0-9/+=%_-]{{16,}})",
        re.IGNORECASE,
    ),
    re.compile(r"Bearer[ \t]{1,4}([A-Za-z0-9._~+/=-]{8,})"),
    # in small letters it is also a word, as in "a standard bearer walking"; a token has a digit or
    # is long
    re.compile(
        r"bearer[ \t]{1,4}((?:[A-Za-z._~+/=-]{0,64}[0-9]|[A-Za-z._~+/=-]{24})[A-Za-z0-9._~+/=-]*)"
    ),
    re.compile(
        r"://([^\s/?#\"'<>:@]{0,256}:[^\s/?#\"'<>]{1,1024})@"
    ),  # user:password, which may hold an @
    re.compile(rf"-----BEGIN {_PEM_LABEL}.*?(?:-----END {_PEM_LABEL}|\Z)", re.DOTALL),
    re.compile(r"hf_[A-Za-z0-9]{16,}"),
    re.compile(r"hooks\.slack(?:-gov)?\.com/([^\s\"'<>]{8,})"),
)


class Redactor:
    """The secrets of one environment. Not a dataclass, since its `repr` would show them.

    Args:
        environment: variables by name. The file that `RAY_AUTH_TOKEN_PATH` names, or else Ray's own
            in the home folder, is read too.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        forms = {form for secret in _secrets(environment) for form in _forms(secret)}
        self._forms = [form for form in forms if len(form) >= MIN_SECRET_CHARACTERS]

    def redact(self, text: str) -> str:
        """Return the text with a mask in place of each secret; earlier masks stay."""
        return MASK.join(self._redact_part(part) for part in text.split(MASK))

    def _redact_part(self, text: str) -> str:
        """Search the unchanged text for all secrets, so that no mask hides another secret."""
        merged: list[tuple[int, int]] = []
        for start, end in sorted(self._spans(text)):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        ends = [0, *(end for _, end in merged)]
        starts = [*(start for start, _ in merged), len(text)]
        return MASK.join(text[end:start] for end, start in zip(ends, starts, strict=True))

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        for form in self._forms:
            start = text.find(form)
            while start >= 0:
                yield start, start + len(form)
                start = text.find(form, start + 1)  # occurrences may overlap
        for pattern in PATTERNS:
            yield from (match.span(pattern.groups) for match in pattern.finditer(text))


def redact(text: str) -> str:
    """Return the text without the secrets of this environment and without credentials."""
    return Redactor(os.environ).redact(text)


def _secrets(environment: Mapping[str, str]) -> Iterator[str]:
    for name, value in environment.items():
        if name.upper() in SECRET_NAMES or name.upper().endswith(SECRET_ENDINGS):
            yield value.strip()
            yield from (line.strip() for line in value.splitlines())
    token_path = (
        environment.get(TOKEN_PATH_NAME) or f"{environment.get('HOME', '')}/.ray/auth_token"
    )
    try:
        path = Path(token_path)
        if path.is_file():
            with path.open("rb") as file:
                yield file.read(MAX_TOKEN_FILE_BYTES).decode(errors="replace").strip()
    except (OSError, ValueError):
        # an unreadable file gives this process no secret; ValueError: the path holds NUL
        return


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret as it is, as a URL holds it, and as `repr` and JSON write it."""
    yield secret
    yield from (
        quoted(secret, safe=safe, errors="replace")
        for quoted in (quote, quote_plus)
        for safe in ("", "/")
    )
    yield repr(secret)[1:-1]
    yield from (json.dumps(secret, ensure_ascii=is_ascii)[1:-1] for is_ascii in (True, False))
