"""The project's prose keeps the rules of plain English that a program can check."""

from pathlib import Path

import pytest

from tests.prose import check_markdown, check_prose, check_python
from tests.structure import ROOT, tracked


def test_every_file_keeps_the_rules_of_prose() -> None:
    findings = check_prose(ROOT, tracked(".py", ".md"))
    assert [str(finding) for finding in findings] == []


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ('"""Which clips are done."""', "docstring begins with 'which'"),
        ('def f():\n    """Return it.\n\n    Args:\n        x: what it is.\n    """', "'what'"),
        ("# whether it is there", "comment begins with 'whether'"),
        ('raise ValueError("x is " "no age here")', "banned phrase (is no"),
        ('raise ValueError("the clip was given up")', "banned phrase (given up"),
        ("x = 1  # " + 100 * "-", "longer than 100 characters"),
    ],
)
def test_a_broken_rule_is_found(tmp_path: Path, source: str, rule: str) -> None:
    path = tmp_path / "module.py"
    path.write_text(source + "\n")
    assert any(rule in str(finding) for finding in check_python(path, "module.py"))


def test_tables_and_code_of_a_page_may_be_long(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("| " + 200 * "x" + " |\n```\n" + 200 * "x" + "\n```\n")
    assert list(check_markdown(path, "page.md")) == []
    path.write_text(50 * "xxx " + "\n")
    assert [finding.line for finding in check_markdown(path, "page.md")] == [1]


def test_a_link_whose_target_is_broken_into_two_lines_is_found(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("[one](costs.md#what-is-\nwasted) and [two](costs.md)\n")
    assert [(one.line, one.rule) for one in check_markdown(path, "page.md")] == [
        (1, "a link's target goes on in the next line")
    ]
