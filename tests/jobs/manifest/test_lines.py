"""Lines are read by blocks; a line may lie across the border of two, and so may a character."""

import hashlib
from pathlib import Path

import pytest

from jobs.errors import ManifestError
from jobs.manifest import lines
from jobs.manifest.lines import read_lines
from jobs.manifest.tables import encoding

TEXT = "aé\n\n\r\n\u2028x\x0b\U0001f534\n" * 7 + "the end"


def read(path: Path) -> list[tuple[int, str]]:
    hasher = hashlib.sha256()
    found = list(read_lines(path, hasher, path.stat().st_size))
    assert hasher.digest() == hashlib.sha256(path.read_bytes()).digest()
    return found


@pytest.mark.parametrize("name", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("num_bytes", [1, 2, 3, 7, 64, 1000])
def test_lines_do_not_depend_on_the_size_of_a_block(
    name: str, num_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "BLOCK_BYTES", num_bytes)
    path = tmp_path / "rows.txt"
    path.write_bytes(TEXT.encode(name))
    assert read(path) == list(enumerate(TEXT.replace("\n", "\n\0").split("\0"), 1))


@pytest.mark.parametrize("num_bytes", [1, 5, 1000])
def test_lines_before_a_wrong_byte_are_read_and_its_line_is_cited(
    num_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "BLOCK_BYTES", num_bytes)
    path = tmp_path / "rows.txt"
    path.write_bytes("é\nb\nc".encode() + b"\xe9\nd\n")
    rows = read_lines(path, hashlib.sha256(), 100)
    assert [next(rows), next(rows)] == [(1, "é\n"), (2, "b\n")]
    with pytest.raises(ManifestError, match=r"rows.txt:3: expected UTF-8, got the byte 0xE9"):
        next(rows)


@pytest.mark.parametrize("end", ["", "\n", "\nb"])
def test_the_length_of_a_line_is_its_bytes(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "BLOCK_BYTES", 3)
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 8)
    path = tmp_path / "rows.txt"
    path.write_text(f"é\n{'é' * 4}{end}", encoding="utf-8")
    if end:
        with pytest.raises(ManifestError, match=r"rows.txt:2: the line is longer than 8 bytes"):
            read(path)
    else:
        assert read(path) == [(1, "é\n"), (2, "éééé")]
