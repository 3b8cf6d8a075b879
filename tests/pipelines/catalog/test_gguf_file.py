"""GGUF files of strangers: each fault of a header is one named error, and nothing is read on."""

import os
import struct
from pathlib import Path

import pytest

from pipelines.catalog.files.gguf_file import MAX_TENSORS, inspect_gguf, read_sizes
from pipelines.errors import ModelFolderError, ModelNotFoundError


def text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def tensor(
    name: bytes = b"a", shape: tuple[int, ...] = (32, 2), kind: int = 8, at: int = 0
) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, at)


def gguf(
    *tensors: bytes, keys: tuple[bytes, ...] = (), num_bytes: int = 256, version: int = 3
) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(keys))
    head += b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % 32 + num_bytes)


KEYS = (
    text(b"general.architecture") + struct.pack("<I", 8) + text(b"wan"),
    text(b"numbers") + struct.pack("<IIQ3H", 9, 2, 3, 1, 2, 3),
    text(b"labels") + struct.pack("<IIQ", 9, 8, 2) + text(b"one") + text(b"two"),
    text(b"scale") + struct.pack("<Id", 12, 0.5),
)


def test_the_bytes_of_each_tensor_are_read_past_keys_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(gguf(tensor(), tensor(b"b", (3,), 0, at=96), keys=KEYS))
    assert read_sizes(tmp_path / "a.gguf") == {"a": 68, "b": 12}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "its header does not end"),
        (b"PK\3\4" + bytes(60), "must begin with GGUF"),
        (gguf(tensor(), version=1), "version 2 or 3"),
        (gguf(tensor())[:40], "its header does not end"),
        (struct.pack("<4sIQQ", b"GGUF", 3, MAX_TENSORS + 1, 0), "announces 20001 tensors"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 1, 2**63), "keys"),
        (gguf(text(b"a") + struct.pack("<I", 2**31)), "2147483648 dimensions"),
        (gguf(struct.pack("<Q", 2**62)), "its header does not end"),
        (gguf(tensor(kind=99)), "the type 99, which diffusers does not dequantize"),
        (gguf(tensor(shape=(33, 2))), "rows of 33, not a multiple of 32"),
        (gguf(tensor(shape=(32, 2**50))), "does not lie inside of the file"),
        (gguf(tensor(at=7)), "does not lie inside of the file"),
        (gguf(tensor(at=2**40)), "does not lie inside of the file"),
        (gguf(tensor(), tensor()), "two tensors are called 'a'"),
        (gguf(tensor(b"\xff")), "can't decode"),
        (gguf(tensor(b"a" * 257)), "name of a tensor has 257 bytes"),
        (gguf(keys=(text(b"a") + struct.pack("<IIQ", 9, 9, 2**40),)), "its header does not end"),
        (gguf(keys=(text(b"a") + struct.pack("<I", 77),)), "its header does not end"),
        (
            gguf(keys=(text(b"general.alignment") + struct.pack("<II", 4, 0),)),
            "its alignment is 0",
        ),
    ],
)
def test_a_broken_header_is_one_named_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(ModelFolderError, match=rf"a\.gguf cannot be loaded .*{message}"):
        read_sizes(tmp_path / "a.gguf")


def test_a_pipe_and_a_missing_file_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelFolderError, match="a named pipe"):
        read_sizes(tmp_path / "pipe.gguf")
    with pytest.raises(ModelNotFoundError, match="does not exist here"):
        inspect_gguf("transformer", "b.gguf", tmp_path / "mine.yaml")
    (tmp_path / ".gguf").mkdir()
    for file in ("pipe.gguf", ".gguf"):
        with pytest.raises(ModelFolderError, match=r"\.gguf cannot be read: "):
            inspect_gguf("transformer", file, tmp_path / "mine.yaml")
    for file in ("a\0b.gguf", "~no-such-user-here/a.gguf", "a" * 300 + ".gguf"):
        with pytest.raises(ModelNotFoundError, match=r"mine\.yaml: "):
            inspect_gguf("transformer", file, tmp_path / "mine.yaml")


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0")
    with pytest.raises(ModelNotFoundError, match="is a git-lfs pointer"):
        read_sizes(tmp_path / "a.gguf")
