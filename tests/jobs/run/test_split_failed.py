"""The split of failed models: those that are broken, and those that the cluster may have failed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import ModelFailedError, ModelNotLoadedError, NoWorkersError
from jobs.manifest.manifest import open_manifest
from jobs.plan.plan import make_plan
from jobs.plan.worker_kinds import WorkerKind
from jobs.run.broken_models import FailedKind, split_failed
from pipelines.parallel_config import ONE_DEVICE
from tests.fakes.catalog import FakeCatalog

BROKEN = ModelNotLoadedError("the weights hold NaN")


@pytest.mark.parametrize(
    ("done", "failed", "num_committed", "expected"),
    [
        ("", {"tiny": BROKEN}, 0, ""),
        ("", {"tiny": BROKEN}, 1, "tiny"),
        ("coarse", {"tiny": BROKEN}, 0, "tiny"),
        ("coarse", {"tiny": NoWorkersError("no room")}, 0, ""),
        # whatever keeps models from loading that rendered clips before, it is not those models
        ("tiny coarse", {"tiny": BROKEN, "coarse": BROKEN}, 0, ""),
        ("coarse", {"tiny": BROKEN, "coarse": BROKEN}, 0, ""),
        ("tiny", {"tiny": BROKEN}, 0, ""),
        ("tiny coarse", {"tiny": BROKEN}, 1, "tiny"),
    ],
)
def test_a_model_is_broken_only_if_the_cluster_renders_another_one(
    write: Callable[[str, str], Path],
    catalog: FakeCatalog,
    done: str,
    failed: dict[str, ModelFailedError],
    num_committed: int,
    expected: str,
) -> None:
    rows = [{"prompt": prompt, "model": model} for prompt in "ab" for model in ("tiny", "coarse")]
    path = write("night.jsonl", "\n".join(json.dumps(row) for row in rows))
    specs = list(open_manifest(path, catalog).specs())
    committed = {
        spec.clip_id
        for spec in specs
        if spec.request.prompt == "a" and spec.model.name in done.split()
    }
    plan = make_plan(open_manifest(path, catalog), committed, set())
    kinds = [FailedKind(WorkerKind(model, ONE_DEVICE), error, 0) for model, error in failed.items()]
    broken, stopped = split_failed(kinds, plan, num_committed)
    assert [one.kind.model for one in broken] == expected.split()
    assert [one.kind.model for one in stopped] == [one for one in failed if one not in expected]
