"""Prompt sets: the same file gives the same prompts, and a manifest that plans takes them."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_OK, EXIT_REFUSED
from jobs.manifest.manifest import open_manifest
from jobs.prompt_sets.captions import caption_prompts
from jobs.prompt_sets.objects import COLOURS, OBJECTS, TASKS, Words, object_prompts
from jobs.prompt_sets.pairs import pair_prompts

WORDS = Words(OBJECTS, "a video of")
COCO: dict[str, Any] = {
    "images": [],
    "annotations": [
        {"image_id": picture, "id": 100 * picture + number, "caption": f" a  cat\n{picture}. "}
        for picture in range(20)
        for number in (2, 1)
    ],
}


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_objects_have_six_tasks_with_notes_that_say_what_is_asked_for() -> None:
    prompts = list(object_prompts(10, WORDS, "blurry"))
    assert Counter(one.notes["task"] for one in prompts) == dict.fromkeys(TASKS, 10)
    assert len({one.prompt for one in prompts}) == 60
    assert len({one.name for one in prompts}) == 60
    assert list(object_prompts(10, WORDS, "blurry")) == prompts
    for one in prompts:
        assert one.prompt.startswith("a video of ")
        assert one.negative == "blurry"
        notes = one.notes
        if notes["task"] == "counting":
            assert OBJECTS[notes["object"]] in one.prompt
        else:
            assert notes["object"] in one.prompt
        if notes["task"] == "attribute_binding":
            assert f"{notes['colour_2']} {notes['object_2']}" in one.prompt
            assert notes["colour"] != notes["colour_2"]
        if notes["task"] == "position":
            assert f"{notes['position']} a" in one.prompt


def test_articles_follow_the_word_and_no_orange_is_orange() -> None:
    prompts = list(object_prompts(200, Words(OBJECTS, ""), ""))
    texts = " ; ".join(one.prompt for one in prompts)
    assert " a apple" not in texts
    assert "an orange" in texts
    assert "orange orange" not in texts
    assert set(COLOURS) == {one.notes["colour"] for one in prompts if "colour" in one.notes}


def test_a_short_list_of_objects_gives_what_it_has(tmp_path: Path) -> None:
    prompts = list(object_prompts(50, Words({"fox": "foxes", "owl": "owls"}, ""), ""))
    counts = Counter(one.notes["task"] for one in prompts)
    assert (counts["single_object"], counts["two_objects"], counts["counting"]) == (2, 2, 6)
    words = written(tmp_path / "words.txt", "fox, foxes\n\nowl\n")
    manifest = tmp_path / "objects.jsonl"
    assert main(["prompts", "objects", str(words), "--output", str(manifest)]) == EXIT_OK
    assert {row["meta"]["object"] for row in rows_of(manifest)} == {"fox", "owl"}


def test_captions_are_one_a_picture_and_a_larger_sample_holds_a_smaller_one(
    tmp_path: Path,
) -> None:
    path = written(tmp_path / "captions.json", COCO)
    few = list(caption_prompts(path, 5, "blurry"))
    more = list(caption_prompts(path, 9, "blurry"))
    assert more[:5] == few
    assert len({one.notes["image_id"] for one in more}) == 9
    for one in more:
        picture = one.notes["image_id"]
        assert (one.prompt, one.notes["caption_id"]) == (
            f"a cat {picture}.",
            f"{100 * int(picture) + 1}",
        )
    assert len(list(caption_prompts(path, None, ""))) == 20


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", [{"positive": "a kitchen", "negative": ["microwave", "oven"]}]),
        ("a.jsonl", '{"prompt": "a kitchen", "negative_prompt": "microwave, oven"}\n\n'),
        ("a.csv", 'id,positive_prompt,negative\n1,a kitchen,"microwave, oven"\n'),
    ],
)
def test_pairs_come_in_the_forms_that_files_have(
    tmp_path: Path, name: str, content: object
) -> None:
    (pair,) = pair_prompts(written(tmp_path / name, content), None)
    assert (pair.prompt, pair.negative) == ("a kitchen", "microwave, oven")
    assert pair.row(7) == {
        "name": "pair-00000", "prompt": "a kitchen", "seed": 7,
        "negative_prompt": "microwave, oven",
        "meta": {"form": "pairs", "unwanted": "microwave, oven"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "content", "message"),
    [
        (["pairs", "a.json"], {"prompt": "x"}, "expected a list of objects, got dict"),
        (["pairs", "a.json"], [], "expected a pair or more, got none"),
        (["pairs", "a.csv"], "prompt,negative\n", "expected a pair or more, got none"),
        (["pairs", "a.json"], [1], "entry 1: expected an object, got 1"),
        (["pairs", "a.json"], [{"prompt": "x"}], "entry 1: expected negative_prompt or negative"),
        (
            ["pairs", "a.json"],
            [{"prompt": "", "negative": "y"}],
            "entry 1: prompt: expected a text",
        ),
        (["pairs", "a.json"], "{", "is not JSON"),
        (["pairs", "a.txt"], "x", "expected a file that ends in .json, .jsonl, .csv"),
        (["pairs"], "", "pairs: name the file of pairs"),
        (["captions", "a.json"], [], "expected captions in COCO's form"),
        (["captions", "a.json"], {"annotations": [{"id": 1}]}, "annotations[0] must have image_id"),
        (["objects", "a.txt"], "fox\n", "expected two objects or more"),
        (["objects", "--limit", "0"], "", "--limit: expected 1 to"),
    ],
)
def test_a_file_of_another_form_is_refused_by_name_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], content: object, message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    if words[1:] and not words[1].startswith("--"):
        written(tmp_path / words[1], content)
    before = set(tmp_path.iterdir())
    assert main(["prompts", *words, "--output", "set.jsonl"]) == EXIT_REFUSED
    assert message in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == before


def test_a_manifest_that_is_there_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "set.jsonl", "mine")
    assert main(["prompts", "objects", "--output", str(path)]) == EXIT_REFUSED
    assert "is there already" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_the_manifest_is_one_that_a_plan_takes(tmp_path: Path, catalog: Any) -> None:
    path = tmp_path / "set.jsonl"
    words = ["prompts", "objects", "--output", str(path), "--limit", "2", "--seed", "5"]
    assert main([*words, "--negative-prompt", "text, blurry"]) == EXIT_OK
    specs = list(open_manifest(path, catalog, model="tiny").specs())
    assert [one.request.sampling.seed for one in specs] == list(range(5, 17))
    assert {one.request.negative_prompt for one in specs} == {"text, blurry"}
    assert {one.meta["unwanted"] for one in specs} == {"text, blurry"}


def test_a_planted_name_is_neither_written_through_nor_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim, path = written(tmp_path / "victim.txt", "mine"), tmp_path / "set.jsonl"
    link, foreign = tmp_path / ".set.jsonl.partial", written(tmp_path / ".o2.jsonl.partial", "x")
    link.symlink_to(victim)
    assert main(["prompts", "objects", "--output", str(path), "--limit", "1"]) == EXIT_OK
    assert (victim.read_text(), path.is_symlink(), link.is_symlink()) == ("mine", False, True)
    there = written(tmp_path / "o2.jsonl", "mine")
    assert main(["prompts", "objects", "--output", str(there)]) == EXIT_REFUSED
    assert (there.read_text(), foreign.read_text()) == ("mine", "x")
    capsys.readouterr()
    dangling = tmp_path / "link.jsonl"
    dangling.symlink_to(tmp_path / "nothing")
    assert main(["prompts", "objects", "--output", str(dangling)]) == EXIT_REFUSED
    assert "link.jsonl is there already" in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--opening", "a\udcff"], "--opening: the text holds the control character U+DCFF"),
        (["--opening", "a\x1b[31m"], "--opening: the text holds the control character U+001B"),
        (["--opening", "a" * 2001], "--opening: expected at most 2,000 characters, got 2,001"),
        (["--negative-prompt", "\x07"], "--negative-prompt: the text holds the control character"),
        (["--output", "."], "--output: expected a file, '.' is a folder"),
        (["--output", ""], "--output: expected a file, '.' is a folder"),
        (["--output", "a" * 300], "File name too long"),
    ],
)
def test_an_option_that_a_plan_would_refuse_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["prompts", "objects", "--output", "set.jsonl", *words]) == EXIT_REFUSED
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
