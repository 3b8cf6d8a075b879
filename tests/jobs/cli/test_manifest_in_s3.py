"""A manifest given as a URL: an object of S3 works, everything else is refused by its name."""

import time
from collections.abc import Iterator

import pytest

from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_FINDINGS, EXIT_OK, EXIT_REFUSED
from tests.fakes.s3 import FakeS3, Stored, in_process

YAML = """\
model: shapes-wan
output: s3://renders/out
axes: {prompt: {file: prompts.txt}, seed: {range: [0, 1]}}
"""
OBJECTS = {
    "plans/spring.yaml": YAML,
    "plans/prompts.txt": "a circle moving right\na square moving up\n",
    "plans/rows.jsonl": '{"prompt": "a circle moving right"}\n{"prompt": "a square moving up"}\n',
    "plans/rows.csv": "prompt,seed\na circle moving right,3\n",
    "plans/wrong.jsonl": '{"prompt": "a circle moving right"}\n{"prompt": ""}\n',
    "plans/leaves.yaml": YAML.replace("prompts.txt", "../other/prompts.txt"),
    "plans/absent.yaml": YAML.replace("prompts.txt", "none.txt"),
    "plans/large.csv": "prompt\n" + "a circle moving right\n" * 10,
    "plans/spring.md": YAML,
    "out/runs/20260131-120000-abcdef/run.json": "{}",  # the output of a run
    "plans/prompts.ndjson": '{"prompt": "a circle moving right", "seed": 3.0}\n',
    "plans/sheet.tsv": "\ufeffsep=\t\nprompt\tseed\tshot\na circle moving right\t3\tx\n",
}
MODEL = ("--model", "shapes-wan", "--output", "s3://renders/out")


@pytest.fixture
def server(no_aws_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    objects = {
        f"renders/{key}": Stored(text.encode(), time.time()) for key, text in OBJECTS.items()
    }
    with in_process(FakeS3(objects=objects), monkeypatch) as running:
        yield running


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("arguments", "counts"),
    [
        (("s3://renders/plans/spring.yaml",), "spring: 2 clips"),
        (("s3://renders/plans/rows.jsonl", *MODEL), "rows: 2 clips"),
        (("s3://renders/plans/rows.csv", *MODEL), "rows: 1 clip"),
        (("s3://renders/plans/prompts.txt", *MODEL), "prompts: 2 clips"),
        (("s3://renders/plans/prompts.ndjson", *MODEL), "prompts: 1 clip"),
        (("s3://renders/plans/sheet.tsv", *MODEL, "extra_columns=[shot]"), "sheet: 1 clip"),
    ],
)
def test_a_manifest_in_s3_is_planned(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], counts: str
) -> None:
    assert main(["plan", *arguments]) == EXIT_OK
    assert counts in capsys.readouterr().out


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("s3://renders/plans/wrong.jsonl", "s3://renders/plans/wrong.jsonl:2: prompt"),
        ("s3://renders/plans/leaves.yaml", "holds an empty, '.' or '..' segment"),
        ("s3://renders/plans/absent.yaml", "s3://renders/plans/none.txt does not exist"),
        ("s3://renders/plans/none.yaml", "s3://renders/plans/none.yaml does not exist"),
        ("s3://renders/plans/spring.md", "expected a manifest in .yaml, .yml, .jsonl, .ndjson"),
        ("s3://renders/plans/sheet.tsv", "name it meta.NAME or set extra_columns=[NAME]"),
        ("s3://renders", "does not name an object; expected s3://bucket/key"),
        ("s3://renders/plans/", "does not name an object; expected s3://bucket/key"),
        ("https://example.org/spring.yaml", "nothing is read from 'https://', so copy"),
        ("http://user:geheim1234@example.org/spring.yaml", "nothing is read from 'http://'"),
        ("gs://renders/spring.yaml", "nothing is read from 'gs://'"),
        ("file:///tmp/spring.yaml", "nothing is read from 'file://'"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused_by_its_name(
    capsys: pytest.CaptureFixture[str], manifest: str, message: str
) -> None:
    assert main(["plan", manifest, *MODEL]) == EXIT_REFUSED
    said = capsys.readouterr().err
    assert message in said
    assert "geheim" not in said


def test_a_manifest_in_s3_has_a_limit(
    server: FakeS3, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jobs.cli.pattern.manifest.MAX_VALUES_FILE_BYTES", 100)
    assert main(["plan", "s3://renders/plans/large.csv", *MODEL]) == EXIT_REFUSED
    assert "s3://renders/plans/large.csv is larger than 100 bytes" in capsys.readouterr().err


@pytest.mark.usefixtures("server")
def test_verify_takes_a_manifest_in_s3(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["verify", "s3://renders/out", "--manifest"]
    assert main([*command, "s3://renders/plans/none.yaml"]) == EXIT_REFUSED
    assert "s3://renders/plans/none.yaml does not exist" in capsys.readouterr().err
    assert main([*command, "ftp://renders/none.yaml"]) == EXIT_REFUSED
    assert "nothing is read from 'ftp://'" in capsys.readouterr().err
    table = [*command, "s3://renders/plans/sheet.tsv", "--model", "shapes-wan"]
    assert main(table) == EXIT_REFUSED
    assert "unknown column 'shot'" in capsys.readouterr().err
    assert main([*table, "extra_columns=[shot]"]) == EXIT_FINDINGS
    assert "sheet-000000" in capsys.readouterr().out
