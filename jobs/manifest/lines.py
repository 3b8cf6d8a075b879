"""Text files with line numbers: opened, decoded, split into lines within limits, and watched.

Every error cites the file and the line. `flat_file`, `yaml_tree` and `axes` interpret the
lines.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader, BytesIO, StringIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple, Protocol

from jobs.errors import ManifestError
from jobs.manifest.tables.encoding import (
    BOM,
    UTF_8,
    decoded_blocks,
    detect_encoding,
    encoding_of,
)
from pipelines.regular_files import open_regular_file

MAX_LINE_BYTES = 1024 * 1024
DIGEST_STEP_BYTES = 1024 * 1024
Lines = Iterator[tuple[int, str]]  # each with its number, from 1, and its line end
ADDED_BYTES = 4096  # enough of the appended lines to see more than blanks


class Hasher(Protocol):
    """The part of hashlib's objects that reading needs."""

    def update(self, data: bytes, /) -> None: ...


class SourceLocation(NamedTuple):
    """A line of a file, as error messages cite it."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    def refuse(self, message: str) -> ManifestError:
        """Return the error that cites this line; the caller raises it."""
        return ManifestError(f"{self}: {message}")


@dataclass(frozen=True)
class S3File:
    """An object of S3 in the place of a manifest's file, read once and held in memory."""

    uri: str
    content: bytes

    def __str__(self) -> str:
        return self.uri

    @property
    def parent(self) -> str:
        """The URI below which the files that the manifest names lie."""
        return self.uri.rpartition("/")[0]

    @property
    def stem(self) -> str:
        return PurePosixPath(self.uri).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.uri).suffix


ManifestFile = Path | S3File


class FileWatch:
    """The content that a file had when it was read, to notice that it was rewritten since.

    Args:
        num_bytes: length of the content. Lines appended later change nothing of it.
        sha256: digest of the content, in hexadecimal.
    """

    def __init__(self, path: ManifestFile, num_bytes: int, sha256: str) -> None:
        self.sha256 = sha256
        self.num_bytes = num_bytes
        self._path = path
        self._checked: tuple[int, ...] | None = None

    def check(self) -> None:
        """Raise ManifestError if the file begins with another content now.

        Costs a look at the file's time and size, unless these have changed. A file that cannot be
        looked at now, such as one that was removed, does not count as rewritten.
        """
        if isinstance(self._path, S3File):
            return  # it is held in memory
        try:
            now = self._path.stat()
            state = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns)
            if state == self._checked:
                return
            with open_manifest_file(self._path) as stream:
                digest = digest_of(stream, self.num_bytes)
        except OSError:
            return
        if digest != self.sha256:
            raise SourceLocation(str(self._path), 1).refuse(
                "the file was rewritten after it was opened; run it again to render what it "
                "holds now"
            )
        self._checked = state

    def has_grown(self) -> bool:
        """Return True if lines were appended and the rest of the file is the same."""
        try:
            self.check()
        except ManifestError:
            return False
        return bool(self._added().strip())

    def is_half_a_line(self) -> bool:
        """Return True if the last line that was read, which has no line end, goes on by now."""
        return self._added()[:1] not in (b"", b"\n", b"\r")

    def goes_on(self) -> bool:
        """Return True if anything stands behind what was read by now."""
        return bool(self._added())

    def _added(self) -> bytes:
        """Return the first bytes behind those that were read, if there are any now."""
        try:
            with open_manifest_file(self._path) as stream:
                stream.seek(self.num_bytes)
                return stream.read(ADDED_BYTES)
        except (OSError, ManifestError):
            return b""


def digest_of(stream: BinaryIO, num_bytes: int) -> str:
    """Return the SHA-256 of the next `num_bytes` of a file, or of all until its end."""
    hasher = hashlib.sha256()
    while num_bytes and (part := stream.read(min(num_bytes, DIGEST_STEP_BYTES))):
        hasher.update(part)
        num_bytes -= len(part)
    return hasher.hexdigest()


def open_manifest_file(path: ManifestFile) -> BufferedReader | BytesIO:
    """Open a regular file, or an object that was read, for reading.

    Raises:
        ManifestError: the path is missing, a folder, a pipe, a device or not readable.
    """
    if isinstance(path, S3File):
        return BytesIO(path.content)
    location = SourceLocation(str(path), 1)
    try:
        return open_regular_file(path)
    except FileNotFoundError as error:
        raise location.refuse("the file does not exist") from error
    except IsADirectoryError as error:
        raise location.refuse("expected a file, this is a folder") from error
    except OSError as error:
        raise location.refuse(f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise location.refuse(f"is not a path: {error}") from error


def read_bytes(path: ManifestFile, max_bytes: int, remedy: str) -> bytes:
    """Return the content of a file of at most `max_bytes`.

    Args:
        remedy: advice for the user whose file is larger.
    """
    location = SourceLocation(str(path), 1)
    with open_manifest_file(path) as stream:
        try:
            content = stream.read(max_bytes + 1)
        except OSError as error:
            raise location.refuse(f"cannot be read: {error.strerror}") from error
    if len(content) > max_bytes:
        raise location.refuse(f"is larger than {max_bytes:,} bytes; {remedy}")
    return content


def read_lines(path: ManifestFile, hasher: Hasher, num_bytes: int) -> Lines:
    """Yield each line of a file with its number, from 1, and its line end; hash all bytes.

    Args:
        num_bytes: length of the part that is read; what was appended later is not.
    """
    file, number, begun = str(path), 0, ""
    with open_manifest_file(path) as stream:
        try:
            encoding = detect_encoding(stream)
            for text, wrong_byte in decoded_blocks(stream, encoding, hasher.update, num_bytes):
                begun += text if number or begun else text.removeprefix(BOM)
                if _is_long(begun[: begun.find("\n") + 1 or None], encoding):
                    location = SourceLocation(file, number + 1)
                    raise location.refuse(f"the line is longer than {MAX_LINE_BYTES:,} bytes")
                whole, feed, begun = begun.rpartition("\n")
                for line in StringIO(whole + feed, newline="\n"):
                    number += 1
                    yield number, line
                if wrong_byte is not None:
                    raise _refuse_byte(SourceLocation(file, number + 1), encoding, wrong_byte)
        except OSError as error:
            location = SourceLocation(file, number + 1)
            raise location.refuse(f"cannot be read: {error.strerror}") from error
    if begun:
        yield number + 1, begun


def _is_long(line: str, encoding: str) -> bool:
    # no character of these encodings has more than four bytes
    return 4 * len(line) > MAX_LINE_BYTES and len(line.encode(encoding)) > MAX_LINE_BYTES


def _refuse_byte(location: SourceLocation, encoding: str, byte: int) -> ManifestError:
    remedy = "; save it as UTF-8 (Excel: CSV UTF-8)" if encoding == UTF_8 else ""
    return location.refuse(f"expected {encoding}, got the byte 0x{byte:02X}{remedy}")


def decode(content: bytes, location: SourceLocation, encoding: str | None = None) -> str:
    """Return bytes as text, without a byte order mark.

    Args:
        location: line on which `content` begins.
        encoding: encoding of the file; None takes the one that the byte order mark names.
    """
    encoding = encoding or encoding_of(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = location.line + content.count("\n".encode(encoding), 0, error.start)
        at_fault = SourceLocation(location.file, line)
        raise _refuse_byte(at_fault, encoding, content[error.start]) from error
    return text.removeprefix(BOM) if location.line == 1 else text
