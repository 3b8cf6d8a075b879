"""`nagfarm sheet` and `nagfarm compare` on real clips."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.cli.main import main
from jobs.cli.outputs.clip_axes import committed_clips, value_text
from jobs.cli.outputs.compare import captions_of
from jobs.ending import ExitCode
from jobs.media.decode_check import decode_mp4
from jobs.overview.clip_filter import ClipFilter
from jobs.records.commit import JSON
from jobs.records.keys import record_key
from jobs.settings.run_config import StoreConfig
from jobs.store.store import Store, open_store
from tests.builders.pictures import BLUE, GREEN, RED, ColouredClip

CLIPS = (
    ColouredClip("fox-1", RED, RED, seed=1),
    ColouredClip("fox-10", GREEN, GREEN, seed=10),
    ColouredClip("fox-2", BLUE, BLUE, negative_prompt="blurry", seed=2),
    ColouredClip("boat-1", RED, BLUE, prompt="a boat <b> \U0001f98a", seed=1, size=(48, 32)),
)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    store = open_store((folder / "out").as_uri(), StoreConfig())
    for clip in CLIPS:
        clip.commit(store, folder)
    return folder / "out"


def store_of(output: Path) -> Store:
    return open_store(output.as_uri(), StoreConfig())


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = ExitCode.OK) -> str:
    assert main(list(map(str, arguments))) == code
    captured = capsys.readouterr()
    return captured.out + captured.err


def share_of(picture: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((np.abs(picture.astype(int) - np.array(colour)).max(axis=2) < 25).mean())


# sheet


def test_a_sheet_has_the_chosen_axes_and_the_clips_in_their_places(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, "sheet", str(output), str(tmp_path / "all.png"), "--frames", "1")
    assert "4 clips; rows prompt, columns negative_prompt, lines seed" in text
    picture = np.asarray(Image.open(tmp_path / "all.png"))
    middle = picture.shape[1] // 2
    left, right = picture[:, :middle], picture[:, middle:]
    halves = [share_of(half, colour) > 0.01 for half in (left, right) for colour in (RED, BLUE)]
    assert halves in ([True, False, False, True], [False, True, True, False])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.png"]


def test_other_axes_and_chosen_clips_give_other_sheets(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--rows", "meta.shot", "--columns", "prompt", "--lines", "name", "--clip", "fox*")
    text = said(capsys, "sheet", str(output), str(tmp_path / "few.jpg"), *arguments)
    assert "3 clips; rows meta.shot, columns prompt, lines name" in text
    fox = np.asarray(Image.open(tmp_path / "few.jpg"))
    said(capsys, "sheet", str(output), str(tmp_path / "few.jpg"), "--seed", "10", "--frames", "1")
    assert np.asarray(Image.open(tmp_path / "few.jpg")).size < fox.size, "a file is replaced"


def test_clips_that_agree_on_all_axes_stand_below_each_other(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, axes = tmp_path / "x.png", ("--columns", "model", "--lines", "steps", "--frames", "1")
    said(capsys, "sheet", str(output), str(file), *axes, "--prompt", "*fox*")
    picture = np.asarray(Image.open(file))
    assert all(share_of(picture, colour) > 0.03 for colour in (RED, GREEN, BLUE))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x.gif",), "expected a file that ends in .png, .jpg"),
        (("no/folder/x.png",), "no/folder/x.png: No such file or directory"),
        (("x.png", "--rows", "promt"), "--rows: unknown axis 'promt'; did you mean 'prompt'?"),
        (("x.png", "--frames", "0"), "--frames: expected 1 to 12, got 0"),
        (("x.png", "--clip", "none*"), "no committed clip is chosen"),
        (("x.png", "--limit", "3"), "expected at most 3 clips (--limit), got 4; choose some"),
    ],
)
def test_a_wrong_option_of_a_sheet_is_refused_with_its_remedy(
    output: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    file, *others = arguments
    text = said(capsys, "sheet", str(output), str(tmp_path / file), *others, code=ExitCode.REFUSED)
    assert message in text
    assert not list(tmp_path.iterdir())


def test_a_damaged_clip_is_left_out_named_and_ends_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_of(tmp_path / "out")
    records = [clip.commit(store, tmp_path) for clip in CLIPS[:2]]
    path = tmp_path / "out" / records[0].key
    path.write_bytes(bytes(records[0].num_bytes))
    text = said(
        capsys, "sheet", str(tmp_path / "out"), str(tmp_path / "x.png"), code=ExitCode.UNFINISHED
    )
    assert f"left out: fox-1: {records[0].key} has other bytes than its record says" in text
    assert "x.png: 1 clip;" in text


def test_clips_without_an_mp4_or_a_readable_record_are_named_and_end_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_of(tmp_path / "out")
    records = [clip.commit(store, tmp_path) for clip in CLIPS[:3]]
    store.delete(records[0].key)
    store.put(record_key(records[1].clip_id), b"{", JSON)
    text = said(
        capsys, "sheet", str(tmp_path / "out"), str(tmp_path / "x.png"), code=ExitCode.UNFINISHED
    )
    assert f"left out: fox-1: {records[0].key} is missing" in text
    assert f"left out: {record_key(records[1].clip_id)}: not valid JSON" in text
    assert "x.png: 1 clip;" in text


def test_numbers_of_any_length_are_ordered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_of(tmp_path / "out")
    for seed in (1, 2):
        ColouredClip(str(seed) * 5000, seed=seed).commit(store, tmp_path)
    said(capsys, "sheet", str(tmp_path / "out"), str(tmp_path / "x.png"), "--lines", "name")


@pytest.mark.parametrize(
    "arguments", [("sheet", "clips/x.png"), ("compare", "fox-1", "fox-2", "--output", "x.mp4")]
)
def test_no_picture_is_written_into_the_output(
    output: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    command, *others, file = arguments
    before = sorted(output.rglob("*"))
    text = said(capsys, command, str(output), *others, str(output / file), code=ExitCode.REFUSED)
    assert "is inside of file://" in text
    assert sorted(output.rglob("*")) == before


def test_names_are_ordered_by_their_numbers(output: Path) -> None:
    names = [record.name for record in committed_clips(store_of(output), ClipFilter())[0]]
    assert names == ["boat-1", "fox-1", "fox-2", "fox-10"]


# compare


def test_clips_are_compared_by_name_and_by_id(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_name = {one.name: one for one in committed_clips(store_of(output), ClipFilter())[0]}
    file = tmp_path / "pair.mp4"
    words = "fox-10", by_name["fox-2"].clip_id
    text = said(capsys, "compare", str(output), *words, "--output", str(file), "--height", "64")
    assert text.strip().endswith("pair.mp4: 2 clips")
    frame = decode_mp4(file).frames[0]
    middle = frame.shape[1] // 2
    assert share_of(frame[:, :middle], GREEN) > 0.2
    assert share_of(frame[:, middle:], BLUE) > 0.2


def test_captions_are_the_names_and_what_differs(output: Path) -> None:
    records, _ = committed_clips(store_of(output), ClipFilter(clips=("fox-1", "fox-10")))
    assert captions_of(records) == [("fox-1", "seed 1"), ("fox-10", "seed 10")]
    assert value_text("negative_prompt", "") == "no negative prompt"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fox-1",), "expected 2 to 9 clips, got 1"),
        (("fox-1", "fox-3"), "expected the name or the id of a committed clip, got 'fox-3'"),
        (("fox-1", "0" * 32), f"committed clip, got '{'0' * 32}'"),
        (("fox-1", "fox-2", "--sound", "3"), "--sound: expected 1 to 2, got 3"),
        (("fox-1", "fox-2", "--height", "9"), "--height: expected 32 to 2160, got 9"),
        (("fox-1", "fox-2", "--output", "x.mkv"), "expected a file that ends in .mp4"),
    ],
)
def test_a_wrong_comparison_is_refused_with_its_remedy(
    output: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    target = ("--output", str(tmp_path / "x.mp4"))
    text = said(capsys, "compare", str(output), *target, *arguments, code=ExitCode.REFUSED)
    assert message in text
    assert not list(tmp_path.iterdir())


def test_a_name_of_two_clips_is_refused_with_their_ids(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_of(tmp_path / "out")
    ids = [ColouredClip("twin", seed=seed).commit(store, tmp_path).clip_id for seed in (1, 2)]
    other = ColouredClip("other", seed=3).commit(store, tmp_path).name
    target = ("--output", str(tmp_path / "x.mp4"))
    text = said(
        capsys, "compare", str(tmp_path / "out"), "twin", other, *target, code=ExitCode.REFUSED
    )
    assert "'twin' is the name of 2 clips; give the id of one: " in text
    assert all(one in text for one in ids)
