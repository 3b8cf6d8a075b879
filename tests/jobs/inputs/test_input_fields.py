"""Rows name images and videos in every format; the content alone counts in the id of a clip."""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ManifestError
from jobs.inputs import checked_inputs
from jobs.manifest.lines import S3File
from jobs.manifest.manifest import open_manifest
from jobs.store.uri import parse_object_uri
from jobs.types import ClipSpec
from pipelines.clip_inputs import InputFile
from tests.builders.input_files import BLUE, RED, image_bytes, video_bytes
from tests.fakes.catalog import FakeCatalog

Write = Callable[[str, str | bytes], Path]
GOOD = {"a.png": image_bytes(RED), "b c.png": image_bytes(BLUE), "deep/a.png": image_bytes(RED)}

REFERENCES = {"reference_images": ["b c.png", "deep/a.png"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    for name, content in GOOD.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def file_of(name: str) -> InputFile:
    return InputFile(hashlib.sha256(GOOD[name]).hexdigest(), Path(name).name)


def specs(path: Path, catalog: FakeCatalog, model: str = "edited") -> list[ClipSpec]:
    return list(open_manifest(path, catalog, model=model).specs())


def test_images_are_paired_with_prompts_by_combine(
    folder: Path, write: Write, catalog: FakeCatalog
) -> None:
    names = [f"{number}.png" for number in range(8)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(image_bytes((number, 0, 0)))
    prompts = [f"clip {number}" for number in range(8)]
    axes = f"axes: {{image: {json.dumps(names)}, prompt: {json.dumps(prompts)}}}\n"
    paired = specs(write("m.yaml", f"{axes}combine: (image, prompt)\n"), catalog, "moving")
    found = [(spec.request.prompt, spec.request.inputs.image) for spec in paired]
    assert [(prompt, file.name) for prompt, file in found if file] == [
        *zip(prompts, names, strict=True)
    ]
    assert len({spec.clip_id for spec in paired}) == 8
    assert len(specs(write("m.yaml", axes), catalog, "moving")) == 64


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", 'prompt,image,reference_images,fit\nx,a.png,"b c.png; deep/a.png",contain\n'),
        ("m.tsv", "prompt\timage\treference_images\tfit\nx\ta.png\tb c.png;deep/a.png\tcontain\n"),
        (
            "m.jsonl",
            f"{json.dumps({'prompt': 'x', 'image': 'a.png', 'fit': 'contain', **REFERENCES})}\n",
        ),
        (
            "m.yaml",
            """
defaults: {image: a.png, fit: contain}
axes: {prompt: [x], reference_images: [[b c.png, deep/a.png]]}
""",
        ),
        (
            "m.yaml",
            """
clips: [{prompt: x, image: a.png, fit: contain, reference_images: b c.png; deep/a.png}]
""",
        ),
    ],
)
def test_every_format_names_files(
    name: str, content: str, folder: Path, write: Write, catalog: FakeCatalog
) -> None:
    (spec,) = specs(write(name, content), catalog)
    inputs = spec.request.inputs
    assert inputs.image == file_of("a.png")
    assert inputs.reference_images == (file_of("b c.png"), file_of("deep/a.png"))
    assert (inputs.fit, inputs.video) == ("contain", None)


def test_a_file_of_names_is_an_axis(folder: Path, write: Write, catalog: FakeCatalog) -> None:
    write("names.txt", "a.png\n\nb c.png\n")
    path = write("m.yaml", "axes:\n  prompt: [x]\n  image: {file: names.txt}\n")
    files = [spec.request.inputs.image for spec in specs(path, catalog)]
    assert files == [file_of("a.png"), file_of("b c.png")]


@pytest.mark.parametrize("nothing", [None, "", "  "])
def test_null_and_an_empty_text_are_no_file(
    nothing: str | None, folder: Path, write: Write, catalog: FakeCatalog
) -> None:
    row = {"prompt": "x", "image": nothing, "reference_images": nothing, "video": nothing}
    rows = f"{json.dumps(row)}\n" + '{"prompt": "x"}\n'
    (only,) = specs(write("m.jsonl", rows), catalog)
    assert not only.request.inputs.given()


def test_a_row_may_take_a_default_back(folder: Path, write: Write, catalog: FakeCatalog) -> None:
    path = write("m.yaml", "defaults: {image: a.png}\nclips: [{prompt: x, image: null}]\n")
    (spec,) = specs(path, catalog)
    assert spec.request.inputs.image is None


def test_the_content_decides_the_id_and_the_name_does_not(
    folder: Path, write: Write, catalog: FakeCatalog
) -> None:
    def id_of(**fields: Any) -> str:
        (spec,) = specs(write("m.jsonl", json.dumps({"prompt": "x", **fields})), catalog)
        return spec.clip_id

    assert id_of(image="a.png") == id_of(image="deep/a.png")
    ids = [
        id_of(),
        id_of(image="a.png"),
        id_of(image="b c.png"),
        id_of(last_image="a.png"),
        id_of(image="a.png", fit="stretch"),
        id_of(reference_images=["a.png"]),
        id_of(reference_images=["a.png", "b c.png"]),
        id_of(reference_images=["b c.png", "a.png"]),
    ]
    assert len({*ids}) == len(ids)
    assert id_of(fit="stretch") == id_of()  # nothing to fit


def test_a_long_enough_video_and_its_mask_are_taken(
    folder: Path, write: Write, catalog: FakeCatalog
) -> None:
    write("v.mp4", video_bytes(folder, 17))
    rows = [{"prompt": "x", "video": "v.mp4", "mask": mask} for mask in ("v.mp4", "a.png")]
    path = write("m.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    movie, still = [spec.request.inputs for spec in specs(path, catalog)]
    assert movie.video == movie.mask == still.video
    assert still.mask == file_of("a.png")


def test_a_file_of_another_folder_is_named_by_its_uri(
    folder: Path, write: Write, catalog: FakeCatalog, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("else where") / "a.png"
    elsewhere.write_bytes(GOOD["a.png"])
    assert "%20" in elsewhere.as_uri()
    path = write("m.jsonl", json.dumps({"prompt": "x", "image": elsewhere.as_uri()}))
    (spec,) = specs(path, catalog)
    assert spec.request.inputs.image == file_of("a.png")


def test_a_manifest_in_s3_names_what_lies_beside_it_and_no_file_of_this_machine(
    folder: Path, catalog: FakeCatalog
) -> None:
    objects = {
        "s3://bucket/batch/deep/a.png": GOOD["a.png"],
        "s3://other/b.png": GOOD["b c.png"],
    }
    row = {"prompt": "x", "image": "deep/a.png", "last_image": "s3://other/b.png"}

    def read(uri: str) -> bytes:
        parse_object_uri(uri)
        return objects[uri]

    def manifest(**fields: Any) -> list[ClipSpec]:
        file = S3File("s3://bucket/batch/m.jsonl", json.dumps(row | fields).encode())
        return list(open_manifest(file, catalog, read, model="moving").specs())

    (spec,) = manifest()
    assert spec.request.inputs.image == file_of("a.png")
    assert spec.request.inputs.last_image == InputFile(file_of("b c.png").sha256, "b.png")
    for fields in ({"image": (folder / "a.png").as_uri()}, {"image": "../../a.png"}):
        with pytest.raises(ManifestError, match=r"s3://bucket/batch/m.jsonl:1: image"):
            manifest(**fields)


def test_a_million_rows_would_read_a_file_once(
    folder: Path, write: Write, catalog: FakeCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    opened = checked_inputs.open_regular_file
    monkeypatch.setattr(
        checked_inputs, "open_regular_file", lambda path: (read.append(path), opened(path))[1]
    )
    rows = [
        {"prompt": f"x {number}", "image": name, "fps": 8 + number % 3}
        for number in range(30)
        for name in GOOD
    ]
    path = write("m.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    manifest = open_manifest(path, catalog, model="moving")
    for _ in range(3):
        assert len(list(manifest.specs())) == 60  # two of the files have one content
    assert sorted(read) == sorted(folder / name for name in GOOD)


def test_the_images_of_many_rows_are_read_by_several_threads_and_the_first_fault_is_told(
    folder: Path, write: Write, catalog: FakeCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[str] = set()
    check = checked_inputs.check_image

    def noted(content: bytes) -> None:
        threads.add(threading.current_thread().name.partition("_")[0])
        check(content)

    monkeypatch.setattr(checked_inputs, "check_image", noted)
    for number in range(20):
        is_wrong = number in (7, 9)
        write(f"{number}.png", b"text" if is_wrong else image_bytes((number, 0, 0)))
    rows = [{"prompt": "x", "image": f"{number}.png"} for number in range(20)]
    path = write("m.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(ManifestError, match=r"m.jsonl:8: image '7.png': expected a PNG"):
        specs(path, catalog)
    assert threads == {"inputs", "MainThread"}, "the main thread looks at the first fault again"
