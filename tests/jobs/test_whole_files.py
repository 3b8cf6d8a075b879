"""A file appears whole under its name, and a link that waits there is not followed."""

import errno
import os
from pathlib import Path

import pytest

from jobs.errors import UnwritableError
from jobs.whole_files import unwritable, write_text_for, written_for, written_whole


def test_a_link_under_the_name_is_replaced_and_its_file_stays(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim.txt", tmp_path / "page.md"
    victim.write_text("mine")
    path.symlink_to(victim)
    write_text_for("--report", path, "new")
    assert (victim.read_text(), path.read_text(), path.is_symlink()) == ("mine", "new", False)


@pytest.mark.parametrize("replaces", [True, False])
def test_the_place_of_an_unfinished_file_is_not_known_before(
    tmp_path: Path, *, replaces: bool
) -> None:
    places: list[Path] = []
    for name in ("a.csv", "b.csv"):
        with written_whole(tmp_path / name, replaces=replaces) as unfinished:
            assert unfinished.parent.parent == tmp_path, "on the same file system"
            assert unfinished.parent.stat().st_mode & 0o077 == 0, "closed to others"
            assert unfinished.suffix == ".csv"
            unfinished.write_text(name)
            places.append(unfinished.parent)
    assert places[0] != places[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.csv"]


def test_an_error_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("old")
    with pytest.raises(KeyError), written_whole(path) as unfinished:
        {}[unfinished.write_text("half")]
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("page.md", "old")]


@pytest.mark.parametrize("has_hard_links", [True, False])
@pytest.mark.parametrize("kind", ["file", "link to nothing"])
def test_a_name_that_is_taken_is_not_replaced_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, *, has_hard_links: bool
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links")

    if not has_hard_links:
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "set.jsonl"
    if kind == "file":
        path.write_text("mine")
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError), written_whole(path, replaces=False) as unfinished:
        unfinished.write_text("new")
    assert [one.name for one in tmp_path.iterdir()] == ["set.jsonl"]
    assert path.is_symlink() or path.read_text() == "mine"
    path.unlink()
    with written_whole(path, replaces=False) as unfinished:
        unfinished.write_text("new")
    assert path.read_text() == "new"


def test_the_error_names_the_option_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "page.md"
    with pytest.raises(UnwritableError) as caught, written_for("--report", path):
        pass
    expected = f"--report: cannot write {path}: Not a directory; name another place"
    assert str(caught.value) == expected
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    text = str(unwritable("--output", Path("x"), full))
    assert text.endswith("No space left on device; free space there, or raise the quota")
