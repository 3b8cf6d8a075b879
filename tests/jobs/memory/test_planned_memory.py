"""The memory of a plan's clips: its lines, and the refusal of clips that cannot fit."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.errors import RefusedError
from jobs.manifest.model_catalog import ModelCatalog
from jobs.memory.planned import ClipNeed, memory_lines, memory_needs, refuse_misfits
from jobs.plan.buckets import PlanBucket
from jobs.settings.worker_config import WorkerConfig
from pipelines.cost.memory import MemoryNeed
from pipelines.request import VideoShape
from tests.builders import tiny
from tests.pipelines.cost.test_memory import YAML

BUCKET = PlanBucket("mine", VideoShape(81, 4320, 7680), 8, 1, 1)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> ModelCatalog:
    folder: Path = tmp_path_factory.mktemp("models")
    tiny.wan_pipeline().save_pretrained(folder / "weights")
    (folder / "mine.yaml").write_text(YAML)
    (folder / "host.yaml").write_text(f"{YAML}device: cpu\n")
    return ModelCatalog(folder)


def _needs(
    catalog: ModelCatalog, card: str | None, bucket: PlanBucket = BUCKET, **workers: Any
) -> list[ClipNeed]:
    plan: Any = SimpleNamespace(buckets=(bucket,))
    return memory_needs(plan, catalog, WorkerConfig(**workers), card)


def test_a_clip_that_cannot_fit_is_refused_with_the_lines_that_help(catalog: ModelCatalog) -> None:
    with pytest.raises(
        RefusedError,
        match=r"mine 7680x4320x81: memory of 24 GB on L4, about .* at decode: .*"
        r"turn: vae_dtype: bfloat16, vae_tiling: true; it cannot fit .*--force",
    ):
        refuse_misfits(_needs(catalog, "L4"))


def test_the_card_of_the_workers_counts_and_an_option_wins(catalog: ModelCatalog) -> None:
    needs = _needs(catalog, None, accelerator_type="L4")
    assert [one.fits for one in needs] == [False]
    assert _needs(catalog, "H100", accelerator_type="L4")[0].fits
    refuse_misfits(_needs(catalog, None))  # no card is known


def test_small_clips_and_models_of_a_cpu_have_no_line(catalog: ModelCatalog) -> None:
    (line,) = memory_lines(_needs(catalog, None))
    assert line.startswith("mine 7680x4320x81: memory, about ")
    small = replace(BUCKET, shape=VideoShape(17, 64, 64))
    assert memory_lines(_needs(catalog, None, small)) == []
    assert _needs(catalog, "L4", replace(BUCKET, model="host")) == []


def test_an_unknown_card_is_refused(catalog: ModelCatalog) -> None:
    with pytest.raises(RefusedError, match="--card 'abacus': expected one of H200, H100"):
        _needs(catalog, "abacus")


def test_a_clip_within_the_margin_of_its_card_is_not_refused_but_marked(
    catalog: ModelCatalog,
) -> None:
    (found,) = _needs(catalog, None)
    need = MemoryNeed({"transformer": 70 * 10**9}, {"decode": 4 * 10**9})
    for card, doubt in (("80GB", True), ("82GB", False)):
        one = replace(found, need=need, card=card)
        assert (one.fits, one.may_not_fit) == (True, doubt)
        assert ("it may not fit (within 10% of the card)" in one.text) == doubt
        refuse_misfits([one])
    assert not replace(found, need=need, card="73GB").fits
