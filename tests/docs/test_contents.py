"""docs/README.md lists every page of the manual, and the site takes its order from there."""

from pathlib import Path

from docs.contents import FIRST, contents, listed
from tests.builders.pages import page_names
from tests.structure import ROOT


def test_the_table_of_contents_lists_every_page() -> None:
    found = {f"{page}.md" for pages in listed(ROOT).values() for page in pages}
    missing = set(page_names()) - found - {"README.md", f"{FIRST}.md"}
    assert missing == set(), "add them to docs/README.md, each to its part"


def test_a_page_that_is_not_listed_yet_follows_in_the_part_of_its_folder(tmp_path: Path) -> None:
    for name in ("how-to/a.md", "how-to/b.md", "how-to/c.md", "reference/d.md", "else/e.md"):
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "docs" / "README.md").write_text(
        "# The manual\n\n## First\n\n- [C](how-to/c.md#part)\n\n## Second\n\n- [A](how-to/a.md)\n"
        "- [out](https://example.com/x.md)\n\n## Third\n\n"
        "- [D](reference/d.md), [D](reference/d.md#x), [A](how-to/a.md)\n"
    )
    assert contents(tmp_path) == {
        "First": ["docs/how-to/c"],
        "Second": ["docs/how-to/a", "docs/how-to/b"],
        "Third": ["docs/reference/d"],
    }
