"""Images and videos that cannot be used are refused with the file and the line that name them."""

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs.errors import ManifestError, StoreUnavailableError
from jobs.manifest.manifest import open_manifest
from jobs.media.input_images import check_image
from tests.builders.input_files import image_bytes, saved, video_bytes
from tests.fakes.catalog import FakeCatalog

GOOD = image_bytes()
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>'
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00" + bytes(20)


def frames(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (32, 32), (90 * number, 0, 0)) for number in range(count)]


def animated(kind: str) -> bytes:
    first, *others = frames(3)
    return saved(first, format=kind, save_all=True, append_images=others)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_size(width: int, height: int) -> bytes:
    """Return a PNG whose header promises a size, with few pixels behind it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + pixels + png_chunk(b"IEND", b"")


def with_comment(text: bytes) -> bytes:
    """Return the good PNG with a packed comment."""
    return GOOD[:33] + png_chunk(b"iTXt", b"key\0\1\0\0\0" + zlib.compress(text)) + GOOD[33:]


def transparent() -> bytes:
    image = Image.new("RGBA", (32, 32), (1, 2, 3, 255))
    image.putpixel((3, 4), (1, 2, 3, 254))
    return saved(image)


def audio_only() -> bytes:
    """Return the boxes of an MP4 without any track."""

    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body) + 8) + kind + body

    header = box(b"mvhd", bytes(4) + bytes(8) + struct.pack(">II", 1000, 0) + bytes(80))
    return box(b"ftyp", b"M4A \0\0\0\0M4A ") + box(b"moov", header) + box(b"mdat", bytes(32))


SMALL_FILES: dict[str, Callable[[], bytes]] = {
    "good.png": lambda: GOOD,
    "cut.png": lambda: GOOD[:-40],
    "cut.jpg": lambda: image_bytes(format="JPEG", size=(300, 300))[:-900],
    "text.png": lambda: b"this is a prompt and no image\n",
    "empty.png": lambda: b"",
    "drawing.svg": lambda: SVG,
    "moving.gif": lambda: animated("GIF"),
    "moving.png": lambda: animated("PNG"),
    "moving.webp": lambda: animated("WEBP"),
    "bomb.png": lambda: png_of_size(60_000, 60_000),
    "wide.png": lambda: png_of_size(20_000, 16),
    "nothing.png": lambda: png_of_size(64, 64),
    "text_bomb.png": lambda: with_comment(bytes(80_000_000)),
    "dot.png": lambda: image_bytes(size=(8, 64)),
    "glass.png": transparent,
    "profile.png": lambda: image_bytes(icc_profile=b"no profile"),
    ".hidden.png": lambda: GOOD,
    "sound.wav": lambda: WAV,
    "sound.m4a": audio_only,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    above = tmp_path_factory.mktemp("inputs")
    (above / "outside.png").write_bytes(GOOD)
    made = above / "manifests"
    (made / "folder").mkdir(parents=True)
    for name, content in SMALL_FILES.items():
        (made / name).write_bytes(content())
    movie = video_bytes(above, 9, 32, 32)
    (made / "short.mp4").write_bytes(movie)
    (made / "cut.mp4").write_bytes(movie[:-200])
    (made / "noise.mp4").write_bytes(movie[:48] + bytes(len(movie) - 48))
    (made / "renamed.mp4").write_bytes(GOOD)
    (made / "out.png").symlink_to(above / "outside.png")
    (made / "circle.png").symlink_to(made / "circle.png")
    (made / "to_hidden.png").symlink_to(made / ".hidden.png")
    os.mkfifo(made / "pipe.png")
    with (made / "huge.png").open("wb") as file:
        file.write(GOOD)
        file.truncate(65 * 1024 * 1024)  # a hole, which takes no space
    return made


def image(name: object) -> dict[str, Any]:
    return {"model": "moving", "image": name}


def edited(**fields: Any) -> dict[str, Any]:
    return {"model": "edited", **fields}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a number": (image(7), "image must be the name of an image, not the number 7"),
    "a list": (image(["good.png"]), "image must be the name of an image, not a list"),
    "a mapping": (image({"file": "good.png"}), "image must be the name of an image, not a mapping"),
    "no image": (image(None), "image is missing: moving begins with one"),
    "missing": (image("gone.png"), "image 'gone.png': cannot be read: No such file"),
    "a folder": (image("folder"), "image 'folder': cannot be read: Is a directory"),
    "a pipe": (image("pipe.png"), "expected a regular file, this is a named pipe"),
    "a link out": (image("out.png"), "image 'out.png' is a link that leaves the manifest's folder"),
    "links in a circle": (image("circle.png"), "image 'circle.png' cannot be read"),
    "hidden": (image(".hidden.png"), "image '.hidden.png' is hidden"),
    "a link to a hidden file": (image("to_hidden.png"), "image 'to_hidden.png' is hidden"),
    "above": (image("../outside.png"), "image must be a path below the manifest's folder, not"),
    "absolute": (image("/etc/passwd"), "image must be a path below the manifest's folder, not"),
    "NUL": (image("good\0.png"), "image must be a printable name, not 'good\\x00.png'"),
    "half a surrogate": (image("\ud800.png"), "image must be a printable name, not '\\ud800.png'"),
    "very long": (image("a" * 5000), "cannot be read: "),
    "another scheme": (image("https://x.org/a.png"), "image must be a path below the manifest's"),
    "a file of a host": (image("file://host/a.png"), "image must be an absolute path without"),
    "file with ..": (image("file:///tmp/../etc/a.png"), "image must be an absolute path without"),
    "a hidden file://": (image("file:///root/.ssh/id"), "image 'file:///root/.ssh/id' is hidden"),
    "a device": (image("file:///dev/zero"), "expected a regular file, this is a device"),
    "no S3": (image("s3://bucket/a.png"), "image 's3://bucket/a.png': S3 is not available here"),
    "cut off": (image("cut.png"), "image 'cut.png': the image does not decode: "),
    "a JPEG cut off": (image("cut.jpg"), "image 'cut.jpg': the image does not decode: image file"),
    "text": (image("text.png"), "image 'text.png': expected a PNG, JPEG or WebP image"),
    "empty": (image("empty.png"), "image 'empty.png': the file is empty"),
    "svg": (image("drawing.svg"), "image 'drawing.svg': expected a PNG, JPEG or WebP image"),
    "gif": (image("moving.gif"), "image 'moving.gif': expected a PNG, JPEG or WebP image"),
    "apng": (image("moving.png"), "image 'moving.png': the image is animated"),
    "animated WebP": (image("moving.webp"), "image 'moving.webp': the image is animated"),
    "a bomb": (image("bomb.png"), "an image must have at most 67,108,864 pixels and 16,384 a side"),
    "too wide": (image("wide.png"), "and 16,384 a side, not 20,000x16"),
    "no pixels": (image("nothing.png"), "image 'nothing.png': the image does not decode"),
    "a bomb of text": (image("text_bomb.png"), "image 'text_bomb.png': the image does not decode"),
    "tiny": (image("dot.png"), "an image must have at least 16 pixels a side, not 8x64"),
    "transparent": (image("glass.png"), "the image has transparent pixels"),
    "a broken profile": (image("profile.png"), "the colour profile cannot be read"),
    "huge": (image("huge.png"), "image 'huge.png': the file is larger than 67,108,864 bytes"),
    "not of the model": (
        {"model": "tiny", "image": "good.png"}, "tiny takes no image: leave it out"
    ),
    "no video of the model": (
        image("good.png") | {"video": "short.mp4"}, "moving takes no video: leave it out"
    ),
    "an unknown fit": (image("good.png") | {"fit": "crop"}, "unknown fit 'crop'"),
    "too short": (
        edited(video="short.mp4"), "video 'short.mp4' has 9 frames, and the clip num_frames 17"
    ),
    "a cut video": (edited(video="cut.mp4"), "video 'cut.mp4': the video is cut off or no MP4"),
    "a video of zeros": (edited(video="noise.mp4"), "video 'noise.mp4': the video is cut off"),
    "an image as a video": (edited(video="renamed.mp4"), "expected an MP4 or QuickTime video"),
    "a sound": (edited(video="sound.wav"), "expected an MP4 or QuickTime video"),
    "sound in an MP4": (edited(video="sound.m4a"), "video 'sound.m4a': the video does not decode"),
    "a video as an image": (edited(image="short.mp4"), "expected a PNG, JPEG or WebP image"),
    "a mask alone": (edited(mask="good.png"), "mask needs a video, which it is a mask of"),
    "a mask of text": (
        edited(video="short.mp4", num_frames=9, mask="text.png"), "expected a PNG, JPEG or WebP"
    ),
    "many references": (
        edited(reference_images=["good.png"] * 9), "reference_images must be at most 8, not 9"
    ),
    "a number as a reference": (
        edited(reference_images=["good.png", 3]), "separated by ';', not with 3 in it"
    ),
    "an empty reference": (
        edited(reference_images="good.png;;cut.png"), "separated by ';', not with '' in it"
    ),
    "a bad reference": (
        edited(reference_images=["good.png", "cut.png"]), "reference_images 'cut.png': the image"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_an_input_that_cannot_be_used_is_refused_with_its_line(
    case: str, folder: Path, catalog: FakeCatalog
) -> None:
    fields, part = REFUSED[case]
    path = folder / "manifest.jsonl"
    rows = ({"prompt": "a", "model": "tiny"}, {"prompt": "b", **fields})
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(ManifestError) as caught:
        list(open_manifest(path, catalog).specs())
    assert str(caught.value).startswith(f"{path}:2: ")
    assert part in str(caught.value)


YAML = "model: moving\naxes:\n  prompt: [a]\n"


@pytest.mark.parametrize(
    ("manifest", "line", "part"),
    [
        (f"{YAML}  image:\n  - good.png\n  - cut.png\n", 6, "image 'cut.png'"),
        (f"{YAML}defaults:\n  image: gone.png\n", 5, "image 'gone.png'"),
        (f"{YAML}defaults: {{image: good.png, image: good.png}}\n", 4, "image"),
        (f"{YAML}  image: good.png\n", 4, "the axis image must be a list"),
        (f"{YAML}  image: {{range: [0, 3]}}\n", 4, "image is text"),
        (f"{YAML}  image: {{file: names.txt}}\n", 0, "image 'text.png'"),
        ("model: moving\nclips:\n- prompt: a\n  image: folder\n", 4, "image 'folder'"),
    ],
)
def test_an_error_in_yaml_cites_the_line_that_names_the_file(
    manifest: str, line: int, part: str, folder: Path, catalog: FakeCatalog
) -> None:
    (folder / "names.txt").write_text("good.png\n\ntext.png\n")
    path = folder / "manifest.yaml"
    path.write_text(manifest)
    with pytest.raises(ManifestError) as caught:
        list(open_manifest(path, catalog).specs())
    where = f"{path}:{line}: " if line else f"{folder / 'names.txt'}:3: "
    assert str(caught.value).startswith(where)
    assert part in str(caught.value)


def test_a_column_that_is_there_twice_is_refused(folder: Path, catalog: FakeCatalog) -> None:
    path = folder / "twice.csv"
    path.write_text("prompt,image,image\na,good.png,cut.png\n")
    with pytest.raises(ManifestError, match="twice.csv:1: the column 'image' is there twice"):
        list(open_manifest(path, catalog, model="moving").specs())


def test_an_object_of_s3_that_cannot_be_read_is_an_error_of_its_row(
    folder: Path, catalog: FakeCatalog
) -> None:
    def read_s3(uri: str) -> bytes:
        raise StoreUnavailableError(f"slow down: {uri}")

    path = folder / "s3.jsonl"
    path.write_text(json.dumps({"prompt": "a", "image": "s3://bucket/a.png"}))
    with pytest.raises(ManifestError, match=r"s3.jsonl:1: image 's3://bucket/a.png': cannot be re"):
        list(open_manifest(path, catalog, read_s3, model="moving").specs())


def test_a_file_that_changes_between_two_walks_is_refused(
    tmp_path: Path, catalog: FakeCatalog
) -> None:
    (tmp_path / "a.png").write_bytes(GOOD)
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a", "image": "a.png"}\n')
    manifest = open_manifest(path, catalog, model="moving")
    assert len(list(manifest.specs())) == 1
    (tmp_path / "a.png").write_bytes(image_bytes((1, 2, 3), (65, 48)))
    with pytest.raises(ManifestError, match=r"a.jsonl:1: image 'a.png': the file was changed"):
        list(manifest.specs())
    (tmp_path / "a.png").write_bytes(GOOD)  # touched, and the same
    assert len(list(manifest.specs())) == 1


def test_a_comment_in_a_png_is_no_fault() -> None:
    """Otherwise the bomb of text could be refused for another reason."""
    check_image(with_comment(b"hello"))
