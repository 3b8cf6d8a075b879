"""The page of benchmarks.card_memory: published sizes, the smallest card, and its rows."""

from pathlib import Path

import pytest

from benchmarks.card_memory import BENCHMARK, TINY, smallest_card
from benchmarks.command import main
from benchmarks.published_folders import PARTS, parts_of
from benchmarks.report import Result
from pipelines.catalog.files.sources import model_paths


@pytest.mark.parametrize(
    ("num_gb", "card"), [(21.8, "24 GB"), (21.9, "32 GB"), (72.0, "80 GB"), (130.0, "none")]
)
def test_a_card_has_room_for_what_an_estimate_leaves_out(num_gb: float, card: str) -> None:
    assert smallest_card(int(num_gb * 1e9)) == card


def test_the_sizes_of_a_model_are_those_of_the_longest_name_that_begins_it() -> None:
    assert parts_of("ltx-2.3-distilled") is PARTS["ltx-2.3"]
    assert parts_of("ltx-2-i2v") is PARTS["ltx-2"]
    assert parts_of("shapes-wan") is None
    large = [
        name for name in model_paths() if name.startswith(("wan", "fastwan", "skyreels", "ltx"))
    ]
    assert all(parts_of(name) for name in large)


def test_the_command_estimates_a_model_at_its_published_size(tmp_path: Path) -> None:
    main(BENCHMARK, [str(tmp_path / "found"), "--tiny"])
    (found,) = Result.read(tmp_path / "found.json").cases.values()
    # 1.419 billion parameters; UMT5's encoder has 5.68 billion, the autoencoder 127 million
    assert found["weights"]["transformer"] == pytest.approx(2.84e9, rel=0.01)
    assert found["weights"]["text_encoder"] == pytest.approx(11.36e9, rel=0.01)
    assert found["weights"]["vae"] == pytest.approx(0.508e9, rel=0.01)
    assert found["peaks"]["text_encoder"] < found["peaks"]["none"]
    assert found["peaks"]["model"] < found["peaks"]["none"]
    assert f"| {TINY} | 832x480x81 | 14.7 |" in (tmp_path / "found.md").read_text()
