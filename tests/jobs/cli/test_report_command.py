"""`nagfarm report` through the command line: its places, its links, and the posters it makes."""

import io
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from infra.local.s3_server import LocalS3
from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_OK, EXIT_REFUSED
from jobs.ending import ExitCode
from jobs.records.commit import read_record
from jobs.records.keys import clip_key, poster_key, thumbnail_key
from jobs.report.page_files import PAGE, page_files
from jobs.report.scripts import document_of, rows_of
from jobs.settings.run_config import StoreConfig
from jobs.store.store import Store, open_store
from tests.builders.outputs import SHAPE, make_output

pytestmark = pytest.mark.usefixtures("no_aws_environment")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    make_output(open_store(str(tmp_path / "spring"), StoreConfig()), 5)
    return tmp_path / "spring"


def report(capsys: pytest.CaptureFixture[str], *arguments: object, code: ExitCode = EXIT_OK) -> str:
    assert main(["report", *map(str, arguments)]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def data_of(folder: Path) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Return the index of a gallery, its first part, and the rows of that."""
    index = document_of("index", (folder / "data" / "index.js").read_bytes())
    part = document_of("part", (folder / "data" / index["parts"][0]["file"]).read_bytes())
    return index, part, rows_of(part)


def test_the_gallery_lies_in_its_output_and_is_brought_up_to_date(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = report(capsys, output)
    assert "5 clips in the gallery: 5 committed; 5 new or changed" in said
    assert f"{output.as_uri()}/report/index.html" in said
    index, _, rows = data_of(output / "report")
    assert index["link_base"] == "../"
    assert all((output / "report" / index["link_base"] / row["key"]).is_file()
               for row in rows)  # fmt: skip
    for name, content, _ in page_files("../"):
        assert (output / "report" / name).read_bytes() == content
    assert "; 0 new or changed" in report(capsys, output)


def test_a_gallery_in_another_folder_reaches_the_clips(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "pages" / "of spring"
    for _ in range(2):  # again, into the gallery that is there
        report(capsys, output, "--to", page)
    index, _, rows = data_of(page)
    assert not (output / "report").exists()
    assert (page / index["link_base"] / rows[0]["key"]).samefile(output / rows[0]["key"])
    assert (page / PAGE).exists() == any(name == PAGE for name, *_ in page_files(""))


def test_missing_posters_are_made_of_the_mp4s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(str(tmp_path / "old"), StoreConfig())
    first, second, damaged, *others = make_output(store, 7, has_posters=False).committed
    for clip_id in others:
        sha256 = read_record(store, clip_id).sha256
        store.put(poster_key(clip_id, sha256), b"of its own", "image/jpeg")
        store.put(thumbnail_key(clip_id, sha256), b"", "image/jpeg")
    store.put(clip_key(others[0], "0" * 64), b"of a slower worker", "video/mp4")
    store.put(read_record(store, damaged).key, b"no video", "video/mp4")
    said = report(capsys, tmp_path / "old", "--no-posters")
    assert "made the posters" not in said
    assert {row["poster"] for row in data_of(tmp_path / "old" / "report")[2]} != {None}
    said = report(capsys, tmp_path / "old")
    assert "made the posters of 2 clips" in said
    assert f"no poster of {damaged}: " in said
    for clip_id in (first, second):
        sha256 = read_record(store, clip_id).sha256
        image = Image.open(io.BytesIO(store.get(poster_key(clip_id, sha256))))
        assert image.size == (SHAPE.width, SHAPE.height)
        assert store.exists(thumbnail_key(clip_id, sha256))
    for clip_id in others:
        sha256 = read_record(store, clip_id).sha256
        assert store.get(poster_key(clip_id, sha256)) == b"of its own"
    rows = {row["id"]: row for row in data_of(tmp_path / "old" / "report")[2]}
    assert rows[first]["poster"] == poster_key(first, read_record(store, first).sha256)
    assert rows[damaged]["poster"] is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--to", "{output}/page"], "inside of"),
        (["--to", "{full}"], "holds other files"),
        (["--to", "s3://renders/page"], "expected a folder on this machine"),
        (["--links", "absolute"], "--links: expected relative, presigned"),
        (["--links", "presigned"], "only objects of S3 can have presigned links"),
        (["--links", "https://u:p@x.org/"], "user or password"),
        (["--links", "ftp://x.org/"], "address of the output on a web server"),
        (["--links", "https://x.org/'; script-src *"], "address of the output on a web server"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_written(
    output: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    reason: str,
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    named = [option.format(output=output, full=full) for option in options]
    assert reason in report(capsys, output, *named, code=EXIT_REFUSED)
    assert not (output / "report").exists()
    assert [path.name for path in full.iterdir()] == ["mine.txt"]


def test_an_output_without_a_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert "expected the output of a run" in report(capsys, tmp_path / "empty", code=EXIT_REFUSED)
    assert list((tmp_path / "empty").iterdir()) == []


def test_links_below_a_web_server_are_kept_and_the_page_may_load_from_it(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page"
    report(capsys, output, "--to", page, "--links", "https://cdn.example.com/spring")
    assert data_of(page)[0]["link_base"] == "https://cdn.example.com/spring/"
    report(capsys, output, "--to", page)  # as the gallery has them
    index, part, _ = data_of(page)
    assert (index["link_base"], part["links"]) == ("https://cdn.example.com/spring/", None)
    if (page / PAGE).exists():
        policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"',
                           (page / PAGE).read_text())  # fmt: skip
        assert policy
        assert "img-src 'self' https://cdn.example.com;" in policy[1]
        assert "media-src 'self' https://cdn.example.com;" in policy[1]
    report(capsys, output, "--to", page, "--links", "relative")
    assert data_of(page)[0]["link_base"].startswith("../")


@pytest.mark.s3
def test_a_gallery_of_a_private_bucket_has_presigned_links(
    s3_environment: LocalS3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, page = "s3://renders/gallery 1", tmp_path / "page"
    store = open_store(output, StoreConfig())
    make_output(store, 5)
    assert "needs links to the clips" in report(capsys, output, "--to", page, code=EXIT_REFUSED)
    refused = report(capsys, output, "--to", page, "--links", "presigned=8d", code=EXIT_REFUSED)
    assert "at most 7 days" in refused
    said = report(capsys, output, "--to", page, "--links", "presigned=1h")
    index, part, rows = data_of(page)
    assert f"work until {index['links_expire_at']}" in said
    row = next(row for row in rows if row["key"] is not None)
    for name in ("key", "poster", "thumbnail"):
        url = link_of(index, part, row[name])
        assert fetched(url) == store.get(row[name])
        assert fetched(url.partition("?")[0]) is None
        assert fetched(url[:-1] + ("0" if url[-1] != "0" else "1")) is None
    secrets = {s3_environment.secret_key.encode(), b"AWS_SECRET"}
    assert not any(secret in path.read_bytes() for path in page.rglob("*.js") for secret in secrets)

    assert data_of(page)[1] == part  # half of the hour is not over
    report(capsys, output, "--to", page)
    assert data_of(page)[1]["links"] == part["links"]
    report(capsys, output, "--to", page, "--links", "presigned=4h")
    assert data_of(page)[1]["links"] != part["links"]

    report(capsys, output)
    assert document_of("index", store.get("report/data/index.js"))["link_base"] == "../"


def link_of(index: dict[str, Any], part: dict[str, Any], key: str) -> str:
    """Return the link that the page makes of a key."""
    query, signature = part["links"]["signed"][key]
    return f"{index['link_base']}{key}?{part['links']['queries'][query]}{signature}"


def fetched(url: str) -> bytes | None:
    """Return what anyone gets under an address; None if it is refused."""
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        error.close()
        return None if error.code == 403 else b"another refusal"


@pytest.mark.s3
def test_credentials_that_may_only_read_make_a_gallery_elsewhere_without_posters(
    s3_environment: LocalS3,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store: Store = open_store("s3://renders/gallery-2", StoreConfig())
    make_output(store, 4, has_posters=False)
    reader = s3_environment.others[0]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", reader.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", reader.secret_key)
    said = report(capsys, store.uri, "--to", tmp_path / "page", "--links", "presigned")
    assert "no posters: cannot write" in said
    assert "4 clips in the gallery" in said
    index, part, rows = data_of(tmp_path / "page")
    assert fetched(link_of(index, part, rows[0]["key"]))
    assert "cannot write" in report(capsys, store.uri, code=EXIT_REFUSED)
