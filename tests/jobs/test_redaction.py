import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jobs.redaction import MASK, PATTERNS, Redactor, redact

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
NONE = Redactor({"HOME": "/nowhere"})
PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nq83vEjRWeJA=\n-----END RSA PRIVATE KEY-----"
)

# strings that look like a credential, and the part of each that must not survive
CREDENTIALS = {
    "an access key id": ("key AKIAIOSFODNN7EXAMPLE of", "AKIAIOSFODNN7EXAMPLE"),
    "a session's key id": ("'ASIAIOSFODNN7EXAMPLE'", "ASIAIOSFODNN7EXAMPLE"),
    "a signed URL": ("https://s3/b/k?X-Amz-Date=1&X-Amz-Signature=0a1b2c3d&x=1", "0a1b2c3d"),
    "a signed URL's token": (
        "https://s3/b/k?X-Amz-Security-Token=IQoJb3%2FJpZ2lu&x=1",
        "IQoJb3%2FJpZ2lu",
    ),
    "a signed URL's key": (
        "https://s3/b?X-Amz-Credential=ADMINKEY%2F20261125%2Fs3&x=1",
        "ADMINKEY",
    ),
    "a signed URL in a URL": ("u=https%3A%2F%2Fs3%3FX-Amz-Signature%3D0a1b2c3d", "0a1b2c3d"),
    "a token's header": ("x-amz-security-token: IQoJb3JpZ2lu\r\nHost: s3", "IQoJb3JpZ2lu"),
    "a token's header as bytes": (
        "{'X-Amz-Security-Token': b'IQoJb3JpZ2lu', 'Host': 's3'}",
        "IQoJb3JpZ2lu",
    ),
    "a signed request": (
        (
            "{'Authorization': b'AWS4-HMAC-SHA256 Credential=K/s3, SignedHeaders=host, "
            "Signature=0a1b2c', 'Host': 's'}"
        ),
        "0a1b2c",
    ),
    "a basic header": ("Authorization: Basic dXNlcjpwYXNz\nHost: s3", "dXNlcjpwYXNz"),
    "a bearer in a header": ('"authorization": "Bearer abc"', "abc"),
    "a bearer alone": ("sent Bearer eyJhbGciOi.JIUzI1-NiIs_x", "eyJhbGciOi.JIUzI1-NiIs_x"),
    "a bearer in small letters": ("sent bearer 5d41402abc4b2a76", "5d41402abc4b2a76"),
    "a long bearer without digits": ("bearer " + "abcdefgh" * 4, "abcdefgh"),
    "a URL's password": ("cannot reach http://user:geheim@host:9000/x", "geheim"),
    "a URL's password with an @": ("http://user:ge@heim@host/", "heim"),
    "a URL's password without a user": ("redis://:geheim@host/", "geheim"),
    "a private key": (f"read {PEM} and", "MIIEowIBAAKCAQEA"),
    "a private key in one line": (json.dumps(PEM), "q83vEjRWeJA="),
    "a private key that is cut off": (PEM[:60], "MIIEowIBAAKC"),
    "a hub's token": ("token hf_AbCdEfGhIjKlMnOpQrStUvWxYz is", "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"),
    "a line of a credentials file": ("aws_secret_access_key = " + SECRET, SECRET),
    "an argument": (f"Session(aws_session_token='{SECRET}')", SECRET),
}

INNOCENT = [
    "a standard bearer walking along a river",
    "Bearer of the ring",
    (
        "cannot write s3://renders/spring/records/00.json: the store answers AccessDenied; "
        "allow s3:PutObject"
    ),
    "correct AWS_SECRET_ACCESS_KEY, which does not belong to the access key",
    "no usable credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role",
    (
        'File "/srv/nagfarm/jobs/worker/clip_worker.py", line 128, in render\n'
        "    self._commit(spec, attempt)\n"
    ),
    "http://127.0.0.1:8333/renders?prefix=a@b",
    "s3://renders/spring@home/clips",
    "authorization failed",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "shelf_of_books 12:30 user@host",
]

names = st.sampled_from([
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "HF_TOKEN", "RAY_AUTH_TOKEN",
    "db_password", "X_SECRET",
])  # fmt: skip
secrets = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=8
)
# pieces from which credentials, and halves of them, are put together
pieces = st.sampled_from(
    [
        *(
            "AKIA",
            "IOSFODNN7EXAMPLE",
            "X-Amz-Signature=",
            "X-Amz-Security-Token",
            "': b'",
            "Authorization: ",
            "Basic ",
        ),
        *(
            "Bearer ",
            "bearer ",
            "abcdefgh1",
            "://",
            "user:",
            "geheim",
            "@",
            "/",
            "-----BEGIN PRIVATE KEY-----",
        ),
        *(
            "-----END PRIVATE KEY-----",
            "hf_",
            "0123456789abcdefXYZ",
            "\n",
            " ",
            "'",
            '"',
            "=",
            MASK,
            "[",
            "redacted]",
        ),
        *(SECRET, SECRET[:20], SECRET[20:], "aws_secret_access_key", "%3D"),
    ]
)
composed = st.lists(pieces, max_size=30).map("".join)


@pytest.mark.parametrize("name", CREDENTIALS)
def test_text_that_looks_like_a_credential_is_masked(name: str) -> None:
    text, part = CREDENTIALS[name]
    found = NONE.redact(text)
    assert part not in found
    assert MASK in found
    assert NONE.redact(found) == found


@pytest.mark.parametrize("text", INNOCENT)
def test_text_without_secrets_is_unchanged(text: str) -> None:
    assert Redactor({"AWS_SECRET_ACCESS_KEY": SECRET, "HOME": "/nowhere"}).redact(text) == text


def test_the_text_around_a_secret_is_kept() -> None:
    assert (
        NONE.redact("https://s3/k?X-Amz-Signature=0a1b&x=1")
        == f"https://s3/k?X-Amz-Signature={MASK}&x=1"
    )
    assert NONE.redact("http://user:geheim@host/x") == f"http://{MASK}@host/x"
    assert NONE.redact(f"a {PEM} b") == f"a {MASK} b"
    assert Redactor({"HF_TOKEN": SECRET, "HOME": ""}).redact(f"<{SECRET}>") == f"<{MASK}>"


@given(names, secrets, st.text(), st.text())
def test_a_planted_secret_never_survives(name: str, secret: str, before: str, after: str) -> None:
    assume(secret not in MASK and MASK not in secret)
    redactor = Redactor({name: secret, "HOME": "/nowhere"})
    for written in (secret, quote(secret, safe=""), repr(secret), json.dumps(secret)):
        found = redactor.redact(before + written + after)
        assert secret not in found
        assert written.strip("'\"") not in found
        assert redactor.redact(found) == found


@given(
    st.text(),
    st.dictionaries(
        st.sampled_from(["HOME", "PATH", "LANG", "AWS_REGION", "RAY_ADDRESS"]), secrets
    ),
)
def test_variables_that_hold_no_secret_mask_nothing(text: str, environment: dict[str, str]) -> None:
    assume(not any(pattern.search(text) for pattern in PATTERNS))
    text += "".join(environment.values())
    assert Redactor({**environment, "HOME": "/nowhere"}).redact(text) == text


@settings(max_examples=500)
@given(composed)
def test_redacting_twice_is_redacting_once(text: str) -> None:
    redactor = Redactor({"AWS_SECRET_ACCESS_KEY": SECRET, "HOME": "/nowhere"})
    once = redactor.redact(text)
    assert redactor.redact(once) == once
    assert SECRET not in once


@given(st.text(alphabet="ab", min_size=8, max_size=12), st.text(alphabet="ab", max_size=60))
def test_secrets_that_overlap_are_all_masked(secret: str, text: str) -> None:
    found = Redactor({"A_KEY": secret, "HOME": "/nowhere"}).redact(text)
    covered = {
        at + i for at in range(len(text)) if text.startswith(secret, at) for i in range(len(secret))
    }
    assert found.replace(MASK, "") == "".join(
        letter for at, letter in enumerate(text) if at not in covered
    )


def test_a_secret_that_is_part_of_the_mask_does_not_make_it_grow() -> None:
    redactor = Redactor({"A_TOKEN": "redacted", "HOME": "/nowhere"})
    assert redactor.redact("redacted [redacted]") == "[redacted] [redacted]"


def test_a_short_value_is_not_masked() -> None:
    assert (
        Redactor({"SORT_KEY": "a", "SOME_TOKEN": "walking", "HOME": ""}).redact("a dog walking")
        == "a dog walking"
    )


def test_the_lines_of_a_secret_of_many_lines_are_masked_one_by_one() -> None:
    redactor = Redactor({"TLS_KEY": "first-half-of-it\nother-half-of-it\n", "HOME": "/nowhere"})
    assert redactor.redact("other-half-of-it, then first-half-of-it") == f"{MASK}, then {MASK}"


@pytest.mark.parametrize("is_named", [True, False])
def test_the_content_of_rays_token_file_is_masked(tmp_path: Path, is_named: bool) -> None:
    path = tmp_path / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text("5d41402abc4b2a76b9719d911017c592\n")
    environment = {"RAY_AUTH_TOKEN_PATH": str(path)} if is_named else {"HOME": str(tmp_path)}
    assert Redactor(environment).redact("got 5d41402abc4b2a76b9719d911017c592") == f"got {MASK}"


@pytest.mark.parametrize("path", ["/nowhere/token", "/dev/zero", "/", "a\0b", "x" * 5000])
def test_an_unreadable_token_file_masks_nothing(path: str) -> None:
    assert Redactor({"RAY_AUTH_TOKEN_PATH": path}).redact("as it was") == "as it was"


def test_a_redactor_does_not_show_its_secrets() -> None:
    assert SECRET not in repr(Redactor({"HF_TOKEN": SECRET}))


def test_the_environment_is_read_anew_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert redact(f"with {SECRET}") == f"with {MASK}"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-rotated-secret")
    assert redact("with the-rotated-secret") == f"with {MASK}"


LONG = 1_000_000


@pytest.mark.parametrize(
    "unit",
    [
        *(
            "a",
            " ",
            ":",
            "@",
            "://",
            "://a:",
            "A",
            "AKIA",
            "X-Amz-Signature",
            "X-Amz-Signature=",
            "Authorization",
        ),
        *(
            "Authorization: ",
            "bearer ",
            "bearer a",
            "Bearer",
            "-----BEGIN ",
            "-----BEGIN PRIVATE KEY-----",
            "hf_",
        ),
        *(
            "-----BEGIN " + "A" * 32,
            "bearer " + "a" * 63 + " ",
            "://a:" + "b" * 1023 + " ",
            MASK,
            "[",
            SECRET,
        ),
        *(SECRET[:-1], "aaaaaaaa", "aws_secret_access_key=", 'X-Amz-Signature"', "a:b@c/"),
    ],
)
def test_a_megabyte_takes_no_time_whatever_it_holds(unit: str) -> None:
    redactor = Redactor({"AWS_SECRET_ACCESS_KEY": SECRET, "A_KEY": "aaaaaaaa", "HOME": "/nowhere"})
    text = unit * (LONG // len(unit))
    started = time.process_time()
    found = redactor.redact(text)
    assert time.process_time() - started < 10  # a pattern that backtracks takes hours
    assert len(found) <= len(text) + len(MASK) * text.count(unit)
    assert redactor.redact(found) == found


def test_redaction_loads_nothing_but_the_standard_library() -> None:
    program = (
        "import sys, jobs.redaction\n"
        "heavy = {'torch', 'ray', 'boto3', 'yaml', 'omegaconf'}\n"
        "names = {name.split('.')[0] for name in sys.modules}\n"
        "sys.exit(' '.join(sorted(names & heavy)) or 0)"
    )
    root = Path(__file__).parents[2]
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
