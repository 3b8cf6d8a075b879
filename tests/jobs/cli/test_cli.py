"""The command line: a refusal is one plain message and exit code 2, and changes nothing."""

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from infra.local.s3_server import LocalS3
from jobs.cli.main import COMMANDS, main
from jobs.cli.pattern.command import EXIT_OK, EXIT_REFUSED, Command, Options
from jobs.ending import ExitCode
from jobs.errors import (
    ClusterUnreachableError,
    JobError,
    LeaseHeldError,
    LeaseUnusableError,
    ManifestError,
    StoppedError,
    StoreRefusedError,
    StoreUnavailableError,
)
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.records.commit import write_quarantine
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store
from tests.builders import tiny, weights
from tests.builders.manifests import jsonl
from tests.builders.records import quarantine_of
from tests.builders.weights import YAML
from tests.jobs.manifest.test_malformed_manifests import CASES

ONE_CLIP = "name: spring\nmodel: tiny\nclips: [{prompt: a circle, num_inference_steps: 1}]\n"
MODEL = f"""\
{YAML}max_sequence_length: 16
scheduler: {{{{name: UniPCMultistepScheduler, flow_shift: 3.0}}}}
"""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the models `tiny`, `coarse` and `grouped`, with real and complete weights."""
    folder = tmp_path_factory.mktemp("models")
    tiny.wan_pipeline().save_pretrained(folder / "weights")
    (folder / "tiny.yaml").write_text(MODEL.format(source="./weights"))
    coarse = MODEL.format(source="./weights").replace(
        "height: 16, width: 16", "height: 32, width: 32"
    )
    (folder / "coarse.yaml").write_text(coarse)
    (folder / "grouped.yaml").write_text(
        MODEL.format(source="./weights") + "parallel: {ulysses: 2}\n"
    )
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must be refused and return its one message."""
    assert main(list(arguments)) == EXIT_REFUSED
    captured = capsys.readouterr()
    assert captured.err.startswith("nagfarm: ")
    assert "Traceback" not in captured.err
    assert not captured.out
    assert len(captured.err.splitlines()) <= 3
    return captured.err


@pytest.mark.parametrize(("suffix", "content", "line", "_part"), CASES)
def test_render_refuses_a_malformed_manifest_and_changes_nothing(
    suffix: str, content: str | bytes, line: int, _part: str,
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / f"spring.{suffix}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    options = ["--models", str(models), "--output", (tmp_path / "out").as_uri()]
    message = refused(
        capsys, "render", str(path), *options, *([] if suffix == "yaml" else ["--model", "tiny"])
    )
    assert message.startswith(f"nagfarm: {path}:{line}: ")
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", "output"),
        ("s3//renders/spring", "s3://"),
        ("C:/spring", "s3://"),
        ("http://renders/spring", "s3://"),
        ("s3://", "bucket"),
        ("s3://UPPER_case/x", "bucket"),
        ("s3://renders/../other", ".."),
        ("s3://renders/x?versionId=1", "?"),
        ("file://host/dir", "file:///"),
        ("file:relative", "file:///"),
        ("s3://renders/a\x00b", "control"),
    ],
)
def test_a_bad_output_uri_is_refused(
    output: str, message: str, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "spring.yaml"
    path.write_text(ONE_CLIP)
    assert message in refused(
        capsys, "render", str(path), "--models", str(models), "--output", output
    )


def test_a_missing_output_is_refused(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "spring.yaml"
    path.write_text(ONE_CLIP)
    assert "give --output" in refused(capsys, "plan", str(path), "--models", str(models))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("workers.count=0", "workers.count must be at least 1"),
        ("workers.count=many", "workers.count"),
        ("worker.count=2", "worker"),
        ("retry.max_attempts=0", "retry.max_attempts"),
        ("encoding.crf=99", "encoding.crf"),
        ("encoding.preset=best", "encoding.preset"),
        ("store.endpoint_url=ftp://x", "store.endpoint_url"),
        ("nonsense", "is not key=value"),
        ("store.region=${oc.env:HOME}", "interpolations are refused"),
        ("workers.load_timeout_s=nan", "workers.load_timeout_s"),
        ("workers=[1,2]", "WorkerConfig"),
    ],
)
def test_a_bad_setting_is_refused(
    setting: str, message: str, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "spring.yaml"
    path.write_text(ONE_CLIP)
    output = (tmp_path / "out").as_uri()
    assert message in refused(
        capsys, "plan", str(path), setting, "--models", str(models), "--output", output
    )


def test_a_missing_profile_is_refused(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "spring.yaml"
    path.write_text(ONE_CLIP)
    options = ["--profile", str(tmp_path / "none.yaml"), "--output", (tmp_path / "out").as_uri()]
    assert "none.yaml" in refused(capsys, "plan", str(path), "--models", str(models), *options)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("./nothing", "does not exist"),
        ("someone/nothing", "hf download someone/nothing"),
        ("package:nothing", "does not exist"),
        ("./broken", "model_index.json is missing"),
    ],
)
def test_weights_that_are_not_here_are_refused(
    source: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "tiny.yaml").write_text(MODEL.format(source=f"'{source}'"))
    path = tmp_path / "spring.yaml"
    path.write_text(ONE_CLIP)
    output = (tmp_path / "out").as_uri()
    assert message in refused(
        capsys, "render", str(path), "--models", str(tmp_path), "--output", output
    )
    assert not (tmp_path / "out").exists()


def test_a_missing_bucket_is_refused(
    s3_environment: LocalS3, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "spring.yaml"
    path.write_text(ONE_CLIP)
    message = refused(
        capsys, "render", str(path), "--models", str(models), "--output", "s3://no-such-bucket/x"
    )
    assert "NoSuchBucket; create the bucket" in message


def test_wrong_credentials_are_refused_and_not_shown(
    s3_environment: LocalS3, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret-key")
    path = tmp_path / "spring.yaml"
    path.write_text(ONE_CLIP)
    message = refused(
        capsys, "render", str(path), "--models", str(models), "--output", "s3://renders/refused"
    )
    assert "AWS_SECRET_ACCESS_KEY" in message
    assert "planted-secret-key" not in message


def test_credentials_that_may_not_write_are_refused_before_anything_runs(
    s3_environment: LocalS3, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in s3_environment.environment(s3_environment.others[0]).items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "spring.yaml"
    path.write_text(ONE_CLIP)
    assert (
        main(["render", str(path), "--models", str(models), "--output", "s3://renders/refused"])
        == EXIT_REFUSED
    )
    assert "AccessDenied" in capsys.readouterr().err
    for name, value in s3_environment.environment().items():
        monkeypatch.setenv(name, value)
    assert not list(open_store("s3://renders/refused", StoreConfig()).keys(""))


def test_plan_counts_the_clips_to_render(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "spring.yaml"
    path.write_text("name: spring\nmodel: tiny\naxes: {prompt: [a, b], seed: {range: [0, 3]}}\n")
    output = (tmp_path / "out").as_uri()
    assert main(["plan", str(path), "--models", str(models), "--output", output]) == EXIT_OK
    printed = capsys.readouterr().out
    assert "spring: 6 clips" in printed
    assert "to render 6" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "printed"),
    [
        (["--limit", "2"], "spring: 2 clips, chosen by --limit 2"),
        (["--only", "spring-000004", "x", "workers.count=1"], "spring: 2 clips, chosen by --only"),
        (["--only", "x", "--only", "spring-000000", "--limit=1"], "spring: 1 clip, chosen by"),
    ],
)
def test_plan_is_about_a_part_of_the_manifest(
    options: list[str], printed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "spring.yaml"
    path.write_text(
        "name: spring\nmodel: shapes-wan\naxes: {prompt: [a, b], seed: {range: [0, 3]}}\n"
        "clips: [{prompt: c, name: x}]\n"
    )
    output = ["--output", (tmp_path / "out").as_uri()]
    assert main(["plan", str(path), *output, *options]) == EXIT_OK
    assert printed in capsys.readouterr().out
    message = refused(capsys, "plan", str(path), *output, "--only", "x", "spring-00004")
    assert "'spring-00004'; did you mean 'spring-000004'?" in message


def test_plan_draws_random_seeds_once_for_an_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "spring.yaml"
    path.write_text("model: shapes-wan\naxes: {prompt: [a], seed: [random, random]}\n")
    output = (tmp_path / "out").as_uri()
    for _ in range(2):
        assert main(["plan", str(path), "--output", output]) == EXIT_OK
        assert "random seeds of 2 rows, drawn once for this output" in capsys.readouterr().out
        assert list(open_store(output, StoreConfig()).keys("")) == ["random-seeds.json"]


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_a_text_beyond_the_limit_is_refused_by_plan_render_and_doctor(
    field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = tmp_path / "spring.jsonl", (tmp_path / "out").as_uri()
    rows = [{"prompt": "a"}, {"prompt": "b", field: "red " * 48}]
    path.write_text(jsonl(rows))
    expected = f"{path}:2: {field} must have at most 48 tokens for shapes-wan, not 49: shorten it"
    for command in ("plan", "render"):
        options = ["--model", "shapes-wan", "--output", output]
        assert expected in refused(capsys, command, str(path), *options)
    options = ["--manifest", str(path), "--model", "shapes-wan"]
    assert main(["doctor", *options]) == EXIT_REFUSED
    assert f"FAIL  manifest: {expected}" in capsys.readouterr().out
    assert sorted(tmp_path.iterdir()) == [path]
    path.write_text(jsonl([row | {"text": "truncate"} for row in rows]))
    assert main(["doctor", *options]) == EXIT_OK
    assert f"ok    manifest: every row of {path} is right: 2 clips" in capsys.readouterr().out


def test_plan_counts_pixel_equal_rows_and_cut_texts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "spring.yaml"
    path.write_text(
        "name: spring\nmodel: shapes-wan\ndefaults: {method: none, text: truncate}\n"
        f"axes: {{prompt: [a circle, {'red ' * 48}], negative_prompt: ['', red, blue, green]}}\n"
    )
    assert main(["plan", str(path), "--output", (tmp_path / "out").as_uri()]) == EXIT_OK
    printed = capsys.readouterr().out
    assert "spring: 2 clips (8 rows, 6 pixel-equal to an earlier one)" in printed
    assert "to render 2" in printed
    assert "cut: 1 clip with a text of more tokens than the model reads" in printed


GROUPED = """\
name: spring
model: shapes-wan
clips: [{prompt: a, parallel: {ulysses: 2, ring: 2}}, {prompt: b}]
"""


def test_plan_shows_the_devices_of_each_kind_of_clip(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "spring.yaml"
    path.write_text(GROUPED)
    assert main(["plan", str(path), "--output", (tmp_path / "out").as_uri()]) == EXIT_OK
    printed = capsys.readouterr().out
    assert "ulysses 2 x ring 2" in printed
    assert "one device" in printed


@pytest.mark.parametrize("command", ["plan", "render"])
def test_an_attention_backend_without_context_parallelism_is_refused_for_groups(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DIFFUSERS_ATTN_BACKEND", "flex")
    path = tmp_path / "spring.yaml"
    path.write_text(GROUPED)
    message = refused(capsys, command, str(path), "--output", (tmp_path / "out").as_uri())
    assert "DIFFUSERS_ATTN_BACKEND is 'flex'" in message
    assert sorted(tmp_path.iterdir()) == [path]


def test_an_attention_backend_is_refused_for_quarantined_groups_that_are_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIFFUSERS_ATTN_BACKEND", "flex")
    path = tmp_path / "spring.yaml"
    path.write_text(GROUPED)
    output = (tmp_path / "out").as_uri()
    quarantined, _ = open_manifest(path, ModelCatalog()).specs()
    write_quarantine(open_store(output, StoreConfig()), quarantine_of(quarantined.clip_id))
    assert main(["plan", str(path), "--output", output]) == EXIT_OK
    capsys.readouterr()
    message = refused(capsys, "render", str(path), "--output", output, "--retry-quarantined")
    assert "DIFFUSERS_ATTN_BACKEND is 'flex'" in message


@pytest.mark.parametrize(("model", "method"), [("shapes-ltx", "nag"), ("shapes-wan", "vsf")])
def test_an_attention_backend_without_masks_is_refused_for_a_group_that_needs_one(
    model: str,
    method: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DIFFUSERS_ATTN_BACKEND", "_native_flash")
    path = tmp_path / "spring.yaml"
    text = """
defaults: {parallel: {ulysses: 2}, negative_prompt: red}
clips:
- {prompt: a, model: shapes-wan, guidance: {method: nag}}
- {prompt: a, model: MODEL, guidance: {method: METHOD}}
"""
    path.write_text(text.replace("MODEL", model).replace("METHOD", method))
    message = refused(capsys, "plan", str(path), "--output", (tmp_path / "out").as_uri())
    assert "DIFFUSERS_ATTN_BACKEND is '_native_flash'" in message
    path.write_text(text.replace("MODEL", "shapes-wan").replace("METHOD", "nasa"))
    assert main(["plan", str(path), "--output", (tmp_path / "out").as_uri()]) == EXIT_OK


def test_any_attention_backend_is_allowed_for_single_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIFFUSERS_ATTN_BACKEND", "flex")
    path = tmp_path / "spring.yaml"
    path.write_text(GROUPED)
    assert main(["plan", str(path), "--output", (tmp_path / "out").as_uri()]) == EXIT_REFUSED
    path.write_text(GROUPED.replace("{ulysses: 2, ring: 2}", "{}"))
    assert main(["plan", str(path), "--output", (tmp_path / "out").as_uri()]) == EXIT_OK
    assert "to render 2" in capsys.readouterr().out


def test_models_lists_every_model_and_the_command_for_missing_weights(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models"]) == EXIT_OK
    printed = capsys.readouterr().out
    assert "shapes-wan" in printed
    assert "hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers" in printed


def test_doctor_prints_the_failed_checks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["doctor", "--output", (tmp_path / "file" / "below").as_uri()]) == EXIT_REFUSED
    printed = capsys.readouterr().out
    assert "ok    ffmpeg" in printed
    assert "ok    weights: shapes-wan: here and complete" in printed
    (missing,) = [line for line in printed.splitlines() if "packaged model" in line]
    assert missing.startswith("note  weights: ")
    assert "hf download" not in printed  # one note, not one for each of them
    assert "FAIL  store" in printed
    assert main(["doctor", "--output", (tmp_path / "out").as_uri()]) == EXIT_OK


def test_doctor_and_plan_refuse_a_lora_that_a_worker_could_not_load(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One function decides for all three, by the header of the file."""
    folder, output = tmp_path / "models", (tmp_path / "out").as_uri()
    of_musubi = "lora_unet_blocks_0_self_attn_q.lora_{}.weight"
    names = {"down": of_musubi.format("down"), "up": of_musubi.format("up")}
    weights.write_lora(folder, "fits.safetensors", **names, width=24, height=24)
    weights.write_lora(folder, "wide.safetensors", **names, width=28, height=24)
    weights.write_lora(folder, "norm.safetensors", up="transformer.blocks.0.norm1.diff")
    other = "LoRA style was made for another model: transformer has"
    said = {
        "fits": "fits: here and complete",
        "wide": f"wide: {other} the shape (24, 24), not (24, 28), for blocks.0.attn1.to_q.weight",
        "norm": f"norm: {other} no transformer.blocks.0.norm1",
    }
    for name in said:
        lora = f"loras: [{{name: style, source: ./{name}.safetensors}}]\n"
        (folder / f"{name}.yaml").write_text(YAML.format(source=models / "weights") + lora)
    assert main(["doctor", "--models", str(folder)]) == EXIT_REFUSED
    printed = capsys.readouterr().out
    for name, text in said.items():
        assert f"{'ok  ' if name == 'fits' else 'FAIL'}  weights: {text}" in printed
    for name, text in said.items():
        manifest = tmp_path / f"{name}.yaml"
        manifest.write_text(ONE_CLIP.replace("tiny", name))
        main(["plan", str(manifest), "--models", str(folder), "--output", output])
        captured = capsys.readouterr()
        assert (text in captured.out + captured.err) == (name != "fits")


def test_doctor_refuses_weights_that_do_not_fit_their_config(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(models / "weights", tmp_path / "weights")
    (tmp_path / "mine.yaml").write_text(MODEL.format(source="./weights"))
    config = tmp_path / "weights" / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"num_layers": 2', '"num_layers": 3'))
    assert main(["doctor", "--models", str(tmp_path)]) == EXIT_REFUSED
    assert "transformer lacks blocks.2." in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["render", "--help"], ["plan", "--help"]])
def test_the_help_names_the_program_and_the_manifest(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "jobs", *arguments]
    finished = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert "nagfarm" in finished.stdout
    assert "manifest" in finished.stdout


def test_the_manual_and_the_help_have_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    manual = (Path(__file__).parents[3] / "docs" / "how-to" / "operating.md").read_text()
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for code in ExitCode:
        assert f"| {code} | {code.meaning}" in manual.replace("`", "")
        assert f" {code} {code.meaning}" in printed


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ManifestError("m.yaml:1: wrong"), 2),
        (StoreRefusedError("AccessDenied"), 2),
        (StoreUnavailableError("no answer"), 69),
        (ClusterUnreachableError("no Ray cluster"), 69),
        (LeaseHeldError("another driver"), 75),
        (LeaseUnusableError("cannot be read"), 2),
        (StoppedError("by SIGTERM"), 4),
    ],
)
def test_the_exit_code_tells_whether_another_try_helps(
    error: JobError, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_options: Options, _context: object) -> int:
        raise error

    monkeypatch.setitem(COMMANDS, "models", Command("models", "", "", Options, fail))
    assert main(["models"]) == code
    assert str(error) in capsys.readouterr().err


def test_the_version_is_printed_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == EXIT_OK
    assert capsys.readouterr().out == f"nagfarm {metadata.version('nagfarm')}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_has_examples_and_fits_a_terminal(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    printed = capsys.readouterr().out
    assert f"examples:\n  nagfarm {command} " in printed or f"  nagfarm {command}\n" in printed
    assert max(map(len, printed.splitlines())) <= 100


def test_a_missing_folder_of_models_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "does not exist" in refused(capsys, "models", "--models", str(tmp_path / "nothing"))


def test_a_broken_model_is_listed_as_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("family: [")
    assert main(["models", "--models", str(tmp_path)]) == EXIT_OK
    printed = capsys.readouterr().out
    assert "broken" in printed
    assert "shapes-wan" in printed


def test_models_prints_the_command_for_a_missing_lora(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = MODEL.format(source=models / "weights")
    (tmp_path / "styled.yaml").write_text(
        f"{text}loras: [{{name: style, source: Someone/Style-1}}]\n"
    )
    assert main(["models", "--models", str(tmp_path)]) == EXIT_OK
    found = capsys.readouterr().out
    assert (
        "styled: LoRA style: Someone/Style-1 is not in this machine's Hugging Face cache" in found
    )
    assert "hf download Someone/Style-1" in found


def test_doctor_shows_where_the_seconds_of_a_workers_start_go(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a fresh process, which imports no PEFT for a model without LoRAs."""
    assert main(["doctor", "--timing", "shapes-wan"]) == EXIT_OK
    headline, _, *rows = capsys.readouterr().out.splitlines()
    assert headline.startswith("the start of shapes-wan in a fresh process; torch, diffusers, ")
    assert "peft" not in headline
    seconds = {
        part.strip(): float(time_s) for part, time_s in (row.rsplit(None, 1) for row in rows)
    }
    assert [part for part in seconds if part.startswith("import")] == [
        "import torch",
        "import transformers",
        "import diffusers",
        "import wan pipeline",
    ]
    beside = seconds.pop("verify weights, beside the imports")
    assert 0 <= beside <= seconds["whole start"]
    del seconds["its CPU seconds"]
    assert sum(seconds.values()) == pytest.approx(2 * seconds["whole start"], abs=0.1)


def test_doctor_times_no_unknown_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown model" in refused(capsys, "doctor", "--timing", "shapes-won")
