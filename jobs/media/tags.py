"""The metadata tags of an MP4, in the form of ffmpeg's metadata file.

They go by file, since one argument of a command is limited to 128 KiB.

Source: https://ffmpeg.org/ffmpeg-formats.html#Metadata-2
"""

import re
from collections.abc import Mapping
from pathlib import Path

from jobs.errors import EncodeError
from jobs.media.ffmpeg import run_ffmpeg

# tags that the container writes about itself
CONTAINER_KEYS = frozenset(
    {"major_brand", "minor_version", "compatible_brands", "encoder", "creation_time"}
)
METADATA_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.]*")


def read_metadata(path: Path) -> dict[str, str]:
    """Return the tags of an MP4, without those that the container writes about itself.

    Raises:
        EncodeError: ffmpeg cannot read the file.
    """
    command = ["-i", f"file:{path.resolve()}", "-map_metadata", "0", "-f", "ffmetadata", "pipe:1"]
    tags = parse_ffmetadata(run_ffmpeg(command, memoryview(b"")))
    return {key: value for key, value in tags.items() if key not in CONTAINER_KEYS}


def format_ffmetadata(metadata: Mapping[str, str]) -> bytes:
    """Return tags as the content of ffmpeg's metadata file.

    Raises:
        EncodeError: a key or a value would not be read back unchanged.
    """
    lines = [";FFMETADATA1\n"]
    for key, value in metadata.items():
        if not METADATA_KEY.fullmatch(key) or key in CONTAINER_KEYS:
            raise EncodeError(
                "a metadata key is letters, digits, '_' and '.', and not the container's own: "
                f"{key!r}"
            )
        if not value or "\0" in value:
            raise EncodeError(f"metadata {key!r} must not be empty nor hold NUL")
        escaped = re.sub(r"([=;#\\\n\r])", r"\\\1", value)
        # without NUL, ffmpeg would take a value's last backslash for the escape of the line feed
        lines.append(f"{key}={escaped}\0\n")
    try:
        return "".join(lines).encode()
    except UnicodeEncodeError as error:
        raise EncodeError(
            f"metadata is not valid Unicode: {error.reason} at {error.start}"
        ) from error


def parse_ffmetadata(text: bytes) -> dict[str, str]:
    """Return the global tags of a metadata file that ffmpeg wrote.

    Bytes that are not UTF-8, as a damaged file may hold, become replacement characters.
    """
    tags: dict[str, str] = {}
    # an entry ends at a line feed that no backslash escapes
    for match in re.finditer(rb"((?:[^\\\n]|\\.)*)\n", text, re.DOTALL):
        entry = match.group(1)
        if entry.startswith(b"["):
            break
        if entry.startswith((b";", b"#")) or not entry:
            continue
        pair = re.fullmatch(rb"((?:[^\\=]|\\.)*)=(.*)", entry, re.DOTALL)
        if pair:
            key, value = (
                re.sub(rb"\\(.)", rb"\1", part, flags=re.DOTALL).decode(errors="replace")
                for part in pair.groups()
            )
            tags[key] = value
    return tags
