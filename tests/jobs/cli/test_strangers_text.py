"""A stranger's text, planted in every field there is, reaches the output of no command unescaped.

The fields are found by walking dataclasses, records and parsers, so that a new one is planted too.
"""

import argparse
import dataclasses
import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import jobs.records
import nag.errors
import pipelines.errors
from jobs.cli import doctor
from jobs.cli.doctor import Check
from jobs.cli.main import COMMANDS, main
from jobs.cli.pattern.command import EXIT_STOPPED, Command, Options
from jobs.ending import ExitCode
from jobs.errors import JobError, RefusedError, StoppedError
from jobs.manifest.fields import CSV_COLUMNS, FIELDS, GUIDANCE, PARALLEL
from jobs.overview import output_status
from jobs.records.keys import failure_key, lease_key, quarantine_key, record_key, run_key
from jobs.records.lease_record import LeaseRecord
from jobs.records.run_status import FailureSeen, RunStatus
from jobs.records.schema import ClipRecord, FailureRecord, QuarantineRecord
from jobs.settings.run_config import RunConfig, StoreConfig
from jobs.store.store import Store, open_store
from jobs.types import Failure, fields_of
from nag.errors import NagError
from pipelines.catalog.files import sources
from pipelines.catalog.model_config import ModelConfig
from pipelines.errors import PipelineError
from tests.builders import weights
from tests.builders.records import AT_S, RUN_ID, commit, failure_of, quarantine_of
from tests.builders.specs import spec
from tests.builders.unsafe import FORGED, UNSAFE, UNSAFE_PATH, spoilt, unsafe_characters
from tests.jobs.cli.test_status import lease_of, status_of

CLIP_ID = "0123456789abcdef" * 2
MANY = 10_000_000  # characters
ESCAPED = re.compile(r"\\u001b|\\x1b")  # by us, or by Python in quotes
Run = Callable[..., str]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri(), StoreConfig())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command and returns its output, if that is safe to show."""

    def run_command(*arguments: str) -> str:
        try:
            code = main(list(arguments))
        except SystemExit as ended:  # from argparse
            code = ended.code
        captured = capsys.readouterr()
        for text in captured:
            assert unsafe_characters(text) == set(), (arguments, text)
            assert not any(line.lstrip().startswith(FORGED) for line in text.splitlines())
            assert all(len(line) < 100_000 for line in text.splitlines())
        assert code in set(ExitCode)
        if "--json" in arguments and captured.out:
            json.loads(captured.out)
        return captured.out + captured.err

    return run_command


# records in a store


def ids() -> Iterator[str]:
    return (f"{number:032x}" for number in range(1, 100_000))


def clip_record(store: Store) -> ClipRecord:
    return dataclasses.replace(commit(store, spec("circle")), versions={"torch": "2"})


def run_status() -> RunStatus:
    failed = FailureSeen(
        **fields_of(Failure, failure_of(CLIP_ID)), failed_at=status_of().updated_at
    )
    return dataclasses.replace(
        status_of(),
        kinds=status_of().kinds[:1],
        last_failures=(failed,),
        num_log_bytes_dropped=1,
        log_trouble="full",
    )


# Each kind of record, an example, the key at which a stranger puts it, and the commands that read
# it. Objects at the keys of many clips are read at once.
RECORDS: dict[type[Any], tuple[Callable[[Store], Any], Callable[[str], str], list[list[str]]]] = {
    ClipRecord: (clip_record, record_key, [["verify"], ["verify", "--json"], ["gc"]]),
    FailureRecord: (
        lambda _: failure_of(CLIP_ID),
        lambda clip_id: failure_key(clip_id, RUN_ID, 1),
        [["status"], ["verify"]],
    ),
    QuarantineRecord: (
        lambda _: quarantine_of(CLIP_ID),
        quarantine_key,
        [["retry", "--dry-run"], ["verify"], ["verify", "--json"]],
    ),
    RunStatus: (
        lambda _: run_status(),
        lambda _: run_key(RUN_ID, "status.json"),
        [["status"], ["status", "--json"]],
    ),
    LeaseRecord: (
        lambda _: lease_of(renewed_s=AT_S + 1e9),
        lambda _: lease_key(1),
        [["status"], ["gc"], ["verify"], ["verify", "--json"], ["retry"]],
    ),
}


def kinds_of_records() -> set[type[Any]]:
    found: set[type[Any]] = set()
    for module in pkgutil.iter_modules(jobs.records.__path__, "jobs.records."):
        classes = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
        found |= {kind for _, kind in classes if "from_json" in vars(kind)}
    return found


def test_every_kind_of_record_is_planted() -> None:
    assert kinds_of_records() == set(RECORDS)


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_no_record_shows_a_strangers_text_unescaped(
    kind: type[Any], store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_status, "MAX_FAILURES", 10_000)
    example, key_of, commands = RECORDS[kind]
    store.put(run_key(RUN_ID, "run.json"), b"{}", "application/json")
    document = json.loads(example(store).to_json())
    assert set(document) >= {field.name for field in dataclasses.fields(kind)}
    planted = [json.dumps(one).encode() for one in spoilt(document)]
    planted += [UNSAFE.encode(errors="surrogatepass"), f'{{"{UNSAFE}'.encode(errors="replace")]
    is_read_at_once = len({key_of(clip_id) for clip_id, _ in zip(ids(), "ab", strict=False)}) == 2
    for clip_id, content in zip(ids(), planted, strict=False):
        store.put(key_of(clip_id), content, "application/json")
        if not is_read_at_once:
            for command in commands:
                run(*command, store.uri)
    printed = [run(*command, store.uri) for command in commands]
    assert ESCAPED.search("".join(printed)) or not is_read_at_once


def test_a_name_of_ten_million_letters_is_not_printed_whole(store: Store, run: Run) -> None:
    long = "n" * MANY
    store.put(run_key(RUN_ID, "run.json"), b"{}", "application/json")
    clip = dataclasses.replace(status_of().in_flight[0], name=long, worker=long)
    status = dataclasses.replace(status_of(), in_flight=(clip,))
    lease = dataclasses.replace(lease_of(), owner=dataclasses.replace(lease_of().owner, host=long))
    for key, record in (
        (run_key(RUN_ID, "status.json"), status),
        (lease_key(1), lease),
        (failure_key(CLIP_ID, RUN_ID, 1), dataclasses.replace(failure_of(CLIP_ID), name=long)),
        (quarantine_key(CLIP_ID), dataclasses.replace(quarantine_of(CLIP_ID), reason=long)),
    ):
        store.put(key, record.to_json(), "application/json")
    for command in ("status", "status --json", "retry --dry-run"):
        printed = run(*command.split(), store.uri)
        assert len(printed) < 50_000, command
        assert "nnn" in printed


# manifests


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the only model of the catalog, `tiny`."""
    folder = tmp_path / "models"
    weights.write_model(folder / "weights")
    (folder / "tiny.yaml").write_text(weights.YAML.format(source="./weights"))
    (tmp_path / "nothing").mkdir()
    monkeypatch.setattr(sources, "PACKAGED_CONFIGS", tmp_path / "nothing")
    return folder


ROW = {"prompt": "a", GUIDANCE: {"method": "nag", "nag_scale": 3.0}, PARALLEL: {"ulysses": 1}}
MANIFEST = {
    "name": "spring",
    "model": "tiny",
    "output": "file:///nowhere",
    "defaults": {"seed": 1},
    "axes": {"prompt": ["a"], "seed": {"range": [0, 2]}, "height": {"file": "sizes.txt"}},
    "combine": "prompt * seed * height",
}


def rows() -> list[Any]:
    by_field = [{"prompt": "a", name: UNSAFE} for name in CSV_COLUMNS]
    return [*spoilt(ROW), *by_field]


def manifests() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each manifest in which a stranger planted a text."""
    yield from (("a.yaml", json.dumps(document)) for document in spoilt(MANIFEST))
    yield from (("a.yaml", json.dumps({"clips": [row]})) for row in rows())
    yield from (("a.jsonl", json.dumps(row)) for row in rows())
    cell = '"' + UNSAFE.replace("\ud800", "") + '"'
    yield from (("a.csv", f"prompt,{name}\na,{cell}\n") for name in FIELDS if name != "prompt")
    yield from (("a.csv", f"prompt\n{cell}\n"), ("a.csv", f"prompt,{cell}\na,b\n"))
    yield from (("a.csv", f"prompt,meta.a\na,{cell}\n"), ("a.csv", f"prompt,meta.{UNSAFE}\na,b\n"))
    for name in ("a.yaml", "a.jsonl", "a.csv", "a.txt"):
        yield name, f"{UNSAFE}\n".replace("\ud800", "")
        yield name, f'{{"{UNSAFE}": 1}}\n'.replace("\ud800", "")
        yield name, f'{{"{"x" * MANY}": 1}}\n'


def test_no_manifest_shows_a_strangers_text_unescaped(
    models: Path, tmp_path: Path, run: Run
) -> None:
    options = ["--models", str(models), "--output", (tmp_path / "out").as_uri()]
    folder = tmp_path / UNSAFE_PATH
    folder.mkdir()
    for name, text in manifests():
        (folder / name).write_text(text, encoding="utf-8", errors="surrogatepass")
        model = [] if name == "a.yaml" and '"model"' in text else ["--model", "tiny"]
        printed = run("plan", str(folder / name), *options, *model)
        assert ESCAPED.search(printed) or printed.startswith("spring: ")


# models, their weights and their LoRAs


def changed_folders(folder: Path) -> Iterator[Path]:
    """Make folders of weights in each of which a stranger planted a text, and yield each."""
    header = json.loads(weights.header_of("a", format="pt"))
    shards = {"weight_map": {"a": "model.safetensors"}}
    changes = [("model_index.json", json.dumps(one).encode()) for one in spoilt(weights.INDEX)]
    changes += [
        (f"vae/{UNSAFE_PATH[:100]}.json", json.dumps(one).encode())
        for one in ({"auto_map": UNSAFE}, {UNSAFE: 1}, UNSAFE)
    ]
    changes += [
        ("vae/m.safetensors.index.json", json.dumps(one).encode()) for one in spoilt(shards)
    ]
    changes += [
        ("vae/model.safetensors", weights.safetensors(json.dumps(one).encode()))
        for one in spoilt(header)
    ]
    for number, (name, content) in enumerate(changes):
        made = weights.write_model(folder / f"m{number}" / UNSAFE_PATH[:100])
        (made / name).write_bytes(content)
        yield made


def changed_loras(folder: Path) -> Iterator[Path]:
    settings = json.dumps({UNSAFE: UNSAFE})
    for number, header in enumerate((
        weights.header_of(UNSAFE),
        weights.header_of(f"transformer.{UNSAFE}.lora_A.weight"),
        weights.header_of(f"transformer.{weights.MODULE}{UNSAFE}.lora_A.weight"),
        weights.header_of(UNSAFE, lora_adapter_metadata=settings),
        weights.header_of(UNSAFE, lora_adapter_metadata=UNSAFE),
        weights.header_of("a", shape=[UNSAFE]),
    )):  # fmt: skip
        made = folder / f"l{number}" / UNSAFE_PATH[:100]
        made.mkdir(parents=True)
        (made / f"{UNSAFE_PATH[:100]}.safetensors").write_bytes(weights.safetensors(header))
        yield made
    yield folder / UNSAFE_PATH[:100]
    for name in ("a", "b"):
        yield weights.write_lora(folder / "two" / UNSAFE_PATH[:100], f"{UNSAFE_PATH[:80]}{name}")


def configs(kind: type[Any]) -> Iterator[dict[str, Any]]:
    """Yield a document with a planted text in each field of a dataclass of settings."""
    for name, hint in get_type_hints(kind).items():
        yield {name: UNSAFE}
        if dataclasses.is_dataclass(hint):
            assert isinstance(hint, type)
            yield from ({name: inner} for inner in ({UNSAFE: UNSAFE}, *configs(hint)))


def test_no_model_shows_a_strangers_text_unescaped(models: Path, tmp_path: Path, run: Run) -> None:
    base = weights.YAML.format(source=json.dumps(str(models / "weights")))
    yamls: list[str] = []
    for document in configs(ModelConfig):
        (name,) = document
        kept = "".join(f"{line}\n" for line in base.splitlines() if not line.startswith(f"{name}:"))
        if name == "sampling":
            kept = kept.partition("sampling")[0] + "dtype: float32\n"
        yamls.append(kept + json.dumps(document)[1:-1] + "\n")
    yamls += [
        weights.YAML.format(source=json.dumps(str(made)))
        for made in changed_folders(tmp_path / "folders")
    ]
    loras = [{"name": "a", "source": str(made)} for made in changed_loras(tmp_path / "loras")]
    loras += spoilt({"name": "a", "source": "./b", "weight": 1.0, "component": "all"})
    yamls += [f"{base}loras: {json.dumps([lora])}\n" for lora in loras]
    for number, text in enumerate(yamls):
        path = models / f"{number}{UNSAFE_PATH[:100]}.yaml"
        path.write_bytes(text.encode(errors="surrogateescape"))
    printed = run("models", "--models", str(models))
    assert printed.count("broken") > len(yamls) / 2
    assert f"{len(yamls) - 1}\\u001b" in printed


# settings, arguments and errors


def test_no_setting_shows_a_strangers_text_unescaped(
    tmp_path: Path, store: Store, run: Run
) -> None:
    path = tmp_path / f"{UNSAFE_PATH[:100]}.yaml"
    texts = [json.dumps(document) for document in configs(RunConfig)]
    for text in [*texts, UNSAFE.replace("\ud800", ""), "x" * MANY]:
        path.write_text(text)
        assert "u001b" in run("status", store.uri, "--profile", str(path))
    for document in configs(RunConfig):
        (section,) = document
        if isinstance(document[section], dict):
            (name,) = document[section]
            run("status", store.uri, f"{section}.{name}={UNSAFE_PATH}".replace(UNSAFE, UNSAFE_PATH))


def parsers() -> dict[str, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    for command in COMMANDS.values():
        command.add_to(commands)
    return commands.choices


# Arguments that keep a command from running, whatever else is given.
REFUSED = {"render": ("--output", "s3:refused"), "bench": ("--attribute", "refused")}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_argument_is_repeated_unescaped(
    name: str, run: Run, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsafe = Check("a", is_ok=True, message=UNSAFE_PATH)
    # torch is not imported and no process started
    monkeypatch.setattr(doctor, "check_devices", lambda: unsafe)
    monkeypatch.setattr(doctor, "_ray", lambda: [unsafe])
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"}\n')
    given = {"manifest": str(tmp_path / "a.jsonl"), "uri": "file:///nowhere", "kind": "negatives"}
    actions = [one for one in parsers()[name]._actions if one.nargs != 0]
    positionals = [one.dest for one in actions if not one.option_strings and one.dest in given]
    for action in actions:
        values = [UNSAFE_PATH if action.dest == other else given[other] for other in positionals]
        planted = [] if action.dest in positionals else [*action.option_strings[:1], UNSAFE_PATH]
        run(name, *values, *planted, *REFUSED.get(name, ()))
    run(name, f"--{UNSAFE_PATH}")
    run(f"{name}{UNSAFE_PATH}")


def errors() -> Iterator[type[Exception]]:
    for base in (JobError, PipelineError, NagError):
        waiting = [base]
        while waiting:
            kind = waiting.pop()
            waiting += kind.__subclasses__()
            if kind.__module__ in {
                "jobs.errors", pipelines.errors.__name__, nag.errors.__name__,
            }:  # fmt: skip
                yield kind


def test_no_error_shows_a_strangers_text_unescaped(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(error: Exception) -> Command[Any]:
        def fail(_options: object, _context: object) -> int:
            raise error

        return Command("models", "", "", Options, fail)

    for kind in errors():
        monkeypatch.setitem(COMMANDS, "models", raising(kind(f"no {UNSAFE} remedy")))
        printed = run("models")
        assert len(printed.splitlines()) == 1
        assert printed.endswith(" remedy\n")
    monkeypatch.setitem(COMMANDS, "models", raising(StoppedError("a\nb" * (MANY // 10))))
    assert main(["models"]) == EXIT_STOPPED
    assert len(run("models")) < 100_000


def test_no_traceback_shows_a_strangers_text_unescaped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, models: Path
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)  # put back after the test
    main(["models"])
    capsys.readouterr()
    error = RefusedError(UNSAFE + "x" * MANY)
    sys.excepthook(type(error), error, None)
    printed = capsys.readouterr().err
    assert unsafe_characters(printed) == set()
    assert len(printed) < 200_000
