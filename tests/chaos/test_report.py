"""The chaos suite's table and the page that holds it."""

from dataclasses import replace
from pathlib import Path

from tests.chaos.harness.__main__ import write_row
from tests.chaos.harness.audit import Audit
from tests.chaos.harness.report import (
    BEGIN,
    END,
    as_numbers,
    in_words,
    put_between_markers,
    read_outcomes,
    table,
    write_numbers,
)
from tests.chaos.harness.runner import Outcome

PAGES = Path(__file__).parents[2] / "docs" / "measurements"


def outcome(name: str = "kill", lost: tuple[str, ...] = ()) -> Outcome:
    return Outcome(
        name, "kill -9", 4, Audit(24, 24 - len(lost), 0, lost, (), (), ()), 31.4, (0,), ()
    )


def test_the_table_shows_the_number_of_faults_and_their_cost() -> None:
    row = table([outcome()], {"kill": 20.0}).splitlines()[2]
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "kill -9", "4", "24", "24", "0", "0", "0", "0", "0", "0", "31 s", "20 s", "+11 s",
    ]  # fmt: skip


def test_a_broken_invariant_is_shown_in_the_table() -> None:
    assert "NOT AS EXPECTED" in table([outcome(lost=("clip-1",))], {"kill": 20.0})


def test_equal_exit_codes_in_a_row_are_counted() -> None:
    assert in_words((-9, -9, -9, 0)) == "3 x SIGKILL, 0"


def test_only_the_text_between_the_markers_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "chaos.md"
    page.parent.mkdir()
    page.write_text(
        "# Chaos\n\nby people\n\n"
        "<!-- begin faults -->\nold\n<!-- end faults -->\n\nalso by people\n"
    )
    put_between_markers(page, "faults", "new")
    put_between_markers(page, "soak", "long")
    text = page.read_text()
    assert "old" not in text
    assert text.startswith(
        "# Chaos\n\nby people\n\n<!-- begin faults -->\nnew\n<!-- end faults -->\n\nalso by people"
    )
    assert text.endswith("<!-- begin soak -->\nlong\n<!-- end soak -->\n")


def test_outcomes_come_back_from_the_raw_numbers(tmp_path: Path) -> None:
    path = tmp_path / "chaos.json"
    assert read_outcomes(path) == {}
    one, other = outcome(lost=("clip-1",)), outcome("stop")
    write_numbers(path, "faults", {"outcomes": [as_numbers(one, 20.0), as_numbers(other, 7.5)]})
    assert read_outcomes(path) == {"kill": (one, 20.0), "stop": (other, 7.5)}


def test_a_row_is_renewed_and_the_others_stay(tmp_path: Path) -> None:
    report = tmp_path / "chaos"
    for name in ("store-down", "actors-killed"):
        write_row(report, replace(outcome(name), fault=name), 20.0, 0)
    write_row(report, replace(outcome("store-down"), fault="store-down", num_injected=9), 20.0, 0)
    rows = report.with_suffix(".md").read_text().splitlines()[5:-1]
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| actors-killed", "4"],
        ["| store-down", "9"],
    ]


def test_a_missing_page_is_created(tmp_path: Path) -> None:
    put_between_markers(tmp_path / "docs" / "chaos.md", "faults", "table")
    assert (
        "<!-- begin faults -->\ntable\n<!-- end faults -->"
        in (tmp_path / "docs" / "chaos.md").read_text()
    )


def test_each_marker_of_the_pages_stands_on_a_line_of_its_own() -> None:
    pages = {"chaos.md": ("faults", "soak", "mix"), "parallel-faults.md": ("ranks",)}
    for page, names in pages.items():
        lines = (PAGES / page).read_text().splitlines()
        for name in names:
            assert lines.count(BEGIN.format(name)) == lines.count(END.format(name)) == 1
