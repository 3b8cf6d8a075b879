"""Manifests with models that cannot be used, on a real Ray cluster with models that fail on demand.

The plan takes models in the order of their names, so that the broken ones come first and last.
"""

import json
from pathlib import Path

import pytest

from infra.local.ray_cluster import LocalRay
from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_OK, EXIT_QUARANTINE, EXIT_REFUSED, EXIT_STOPPED
from jobs.clip_id import stand_in_id
from jobs.records.commit import committed_ids, quarantined_ids, read_quarantine, read_record
from jobs.records.schema import QuarantineRecord
from jobs.settings.run_config import StoreConfig
from jobs.store.store import Store, open_store
from jobs.worker.setup import ModelLoader
from pipelines.catalog.files.sources import PACKAGED_CONFIGS
from tests.fakes.model import FakeLoader, RewritingLoader, UnloadableLoader

pytestmark = pytest.mark.cluster

YAML = (PACKAGED_CONFIGS / "models" / "shapes-wan.yaml").read_text()
WHOLE = "source: package:shapes-wan"
# One failed clip ends the work on a model, so that its other clips are not tried.
LIMITS = ("workers.count=1", "retry.min_clips_to_stop=1")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("a-unloadable", "b-missing", "m-whole", "z-first-clip"):
        source = "source: ./nowhere" if name == "b-missing" else WHOLE
        (folder / f"{name}.yaml").write_text(YAML.replace(WHOLE, source))
    return folder


def write(folder: Path, models: dict[str, str]) -> Path:
    """Write a manifest with three clips of each model, whose prompt is given."""
    path = folder / "night.jsonl"
    rows = [
        {
            "prompt": prompt,
            "seed": seed,
            "model": name,
            "num_inference_steps": 1,
            "text": "truncate",
        }
        for seed in range(3)
        for name, prompt in models.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def render(manifest: Path, models: Path, loader: ModelLoader, *options: str) -> int:
    out = (manifest.parent / "out").as_uri()
    command = ["render", str(manifest), "--models", str(models), "--output", out, *LIMITS, *options]
    return main(command, loader=loader)


def output(folder: Path) -> Store:
    return open_store((folder / "out").as_uri(), StoreConfig())


def quarantined(store: Store) -> dict[str, QuarantineRecord]:
    return {one.name: one for one in (read_quarantine(store, i) for i in quarantined_ids(store))}


def test_broken_models_are_quarantined_with_the_reason_and_the_rest_is_rendered(
    ray_cluster: LocalRay,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)
    until = f"error until {tmp_path / 'mended'}"
    words = {"z-first-clip": until, "m-whole": "sun", "b-missing": "sun", "a-unloadable": "sun"}
    path, store = write(tmp_path, words), output(tmp_path)
    assert render(path, models, UnloadableLoader()) == EXIT_QUARANTINE
    printed = capsys.readouterr().out
    assert "b-missing: the model folder" in printed
    assert "quarantined: 9 clips" in printed

    done = {read_record(store, clip_id).model.name for clip_id in committed_ids(store)}
    assert (len(committed_ids(store)), done) == (3, {"m-whole"})
    found = quarantined(store)
    first_clips, missing, unloadable = (
        [found[f"night-{index:06d}"] for index in range(start, 12, 4)] for start in (0, 2, 3)
    )
    tried, *others = sorted(first_clips, key=lambda one: -one.num_attempts)
    assert (tried.num_attempts, tried.error_type) == (1, "FakeError")
    assert {(one.num_attempts, one.error_type) for one in others} == {(0, "TooManyFailuresError")}
    assert {one.error_type for one in missing} == {"ModelNotFoundError"}
    assert {one.clip_id for one in missing} == {stand_in_id(one.name) for one in missing}
    assert all("the weights hold NaN" in one.message for one in unloadable)
    for model, several in (("z-first-clip", first_clips), ("a-unloadable", unloadable)):
        assert {one.model for one in several} == {model}
        assert all(one.request and one.request.prompt for one in several), "tried or not"
    assert {(one.model, one.request) for one in missing} == {("b-missing", None)}

    assert render(path, models, UnloadableLoader()) == EXIT_QUARANTINE
    assert "nothing to render" in capsys.readouterr().out
    assert quarantined(store) == found

    (models / "b-missing.yaml").write_text(YAML)
    (tmp_path / "mended").touch()
    mended = FakeLoader()
    assert render(path, models, mended) == EXIT_QUARANTINE, "two models wait for --retry"
    assert "to render 3" in capsys.readouterr().out, "a mended model needs no --retry-quarantined"
    assert len(quarantined_ids(store)) == 6
    assert render(path, models, mended, "--retry-quarantined") == EXIT_OK
    assert len(committed_ids(store)) == 12
    assert not quarantined_ids(store)


def test_a_manifest_that_is_rewritten_before_its_broken_clips_are_quarantined_stops_the_run(
    ray_cluster: LocalRay,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)
    (models / "z-unloadable.yaml").write_text(YAML)
    path, store = write(tmp_path, {"m-whole": "sun", "z-unloadable": "sun"}), output(tmp_path)
    assert render(path, models, RewritingLoader(name="z-unloadable", manifest=path)) == EXIT_STOPPED
    assert "stopped: " in (errors := capsys.readouterr().err)
    assert "the file was rewritten after it was opened" in errors
    assert (len(committed_ids(store)), quarantined_ids(store)) == (3, set())


def test_a_run_in_which_no_model_works_stops_and_quarantines_nothing(
    ray_cluster: LocalRay,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)
    path, store = write(tmp_path, {"a-unloadable": "sun"}), output(tmp_path)
    assert render(path, models, UnloadableLoader()) == EXIT_STOPPED
    assert "could not load a-unloadable: the weights hold NaN" in capsys.readouterr().err
    assert not quarantined_ids(store)

    assert render(write(tmp_path, {"b-missing": "sun"}), models, UnloadableLoader()) == EXIT_REFUSED
    assert "night.jsonl:1: b-missing: the model folder" in capsys.readouterr().err
    assert not quarantined_ids(store)
