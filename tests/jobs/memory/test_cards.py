"""The cards of a cluster and of a machine, and the models that fit on them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.checks.memory import cards_here, check_memory
from jobs.manifest.model_catalog import ModelCatalog
from jobs.memory.cards import cards_of
from jobs.memory.planned import ClipNeed, has_large, on_cluster, refuse_misfits
from pipelines.cost.memory import MemoryNeed
from pipelines.cost.prediction import memory_of_card
from pipelines.request import VideoShape
from tests.builders import tiny
from tests.pipelines.cost.test_memory import YAML


def test_the_cards_of_a_cluster_are_those_of_its_nodes_with_gpus_the_largest_first() -> None:
    machines = [
        {"CPU": 8.0, "GPU": 1.0, "accelerator_type:L4": 1.0},
        {"GPU": 8.0, "label:ray.io/accelerator-type=H100": 1.0, "accelerator_type:H100": 1.0},
        {"CPU": 4.0, "accelerator_type:H200": 1.0},  # its GPUs are reserved for others
        {"GPU": 2.0, "accelerator_type:abacus": 1.0},
    ]
    assert cards_of(machines) == ("H100", "L4")
    assert cards_of([{"CPU": 8.0}]) == ()


def test_a_size_in_rays_names_counts() -> None:
    assert memory_of_card("A100-40G") == 40_000_000_000
    assert memory_of_card("A10G") == 24_000_000_000
    for unread in ("A100-0GB", "A100-4GB", "A100-40.5GB", "A100-4000GB"):
        assert memory_of_card(unread) is None  # and not the memory of other cards of this word


def test_clips_without_a_chosen_card_are_compared_with_the_clusters_cards() -> None:
    bucket: Any = SimpleNamespace(model="mine", shape=VideoShape(81, 480, 832))
    need = MemoryNeed({"transformer": 30 * 10**9}, {"denoise": 10 * 10**9})
    open_need, chosen = ClipNeed(bucket, need, None, ()), ClipNeed(bucket, need, "L4", ())
    assert has_large([open_need])
    assert not has_large([chosen])
    assert on_cluster([open_need, chosen], ()) == [open_need, chosen]
    found, kept = on_cluster([open_need, chosen], ("H100", "A10G", "L4"))
    assert (found.card, found.fits, kept) == ("H100", True, chosen)
    assert "mine 832x480x81: memory of 80 GB on H100, about 40.0 GB" in found.text
    assert found.text.endswith("the cluster also has A10G, L4, where it cannot fit: see "
                               "workers.accelerator_type")  # fmt: skip
    refuse_misfits([found])


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> ModelCatalog:
    folder: Path = tmp_path_factory.mktemp("models")
    tiny.wan_pipeline().save_pretrained(folder / "weights")
    (folder / "mine.yaml").write_text(YAML.replace("480", "4320").replace("832", "7680"))
    (folder / "small.yaml").write_text(YAML)
    (folder / "host.yaml").write_text(f"{YAML}device: cpu\n")
    (folder / "gone.yaml").write_text(YAML.replace("./weights", "./gone"))
    return ModelCatalog(folder)


@pytest.mark.parametrize(
    ("card_gb", "is_ok", "text"),
    [
        (80.0, True, "of 80.0 on H100, at decode"),
        (10.0, None, "of 10.0 on H100 (does not fit by estimate), at decode; turn: vae_dtype:"),
    ],
)
def test_each_model_here_is_compared_with_the_cards_here(
    catalog: ModelCatalog, card_gb: float, is_ok: bool | None, text: str
) -> None:
    (check,) = check_memory(catalog, {"H100": int(card_gb * 1e9)})
    assert (check.name, check.is_ok) == ("memory", is_ok)
    assert check.message.startswith("mine 7680x4320x81 needs about ")
    assert text in check.message


def test_without_a_card_the_need_alone_is_told(catalog: ModelCatalog) -> None:
    (check,) = check_memory(catalog, {})
    assert check.is_ok is None
    assert check.message.endswith("GB at decode; no GPU here")
    assert isinstance(cards_here(), dict)
