"""The page, the CSV and the plot of docs/measurements/parallel-cost."""

import csv
import io
from pathlib import Path

from benchmarks.parallel_cost.plot import draw_speed_ups
from benchmarks.parallel_cost.report import report_text
from benchmarks.parallel_cost.tables import csv_text, refusal, size_table
from pipelines.cost.published import SIZES
from pipelines.parallel_config import ParallelConfig

DOCS = Path(__file__).parents[2] / "docs" / "measurements"


def test_the_page_and_the_csv_are_what_the_command_writes() -> None:
    assert (DOCS / "parallel-cost.md").read_text().startswith(report_text())
    assert (DOCS / "parallel-cost.csv").read_text() == csv_text()


def test_an_impossible_degree_is_marked_with_the_reason() -> None:
    assert refusal(SIZES["Wan 2.1 1.3B, 480p"], ParallelConfig(ulysses=8)) == "12 heads"
    assert refusal(SIZES["LTX 0.9.5, 480p"], ParallelConfig(ulysses=8)) == "4,290 tokens"
    assert "| 8 | - | no: 4,290 tokens | - |" in size_table(SIZES["LTX 0.9.5, 480p"])


def test_the_csv_has_no_line_for_an_impossible_degree() -> None:
    lines = [
        line
        for line in csv.DictReader(io.StringIO(csv_text()))
        if line["size"] == "LTX 0.9.5, 480p"
    ]
    assert [(line["ulysses"], line["ring"]) for line in lines] == [
        ("1", "1"), ("2", "1"), ("1", "2"), ("1", "3"), ("1", "5"), ("1", "6"),
    ]  # fmt: skip


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    draw_speed_ups({name: SIZES[name] for name in list(SIZES)[:2]}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
