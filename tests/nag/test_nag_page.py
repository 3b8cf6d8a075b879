"""The page of the library shows small pictures and the strengths that the code has."""

from docs.nag_gallery import IMAGES, PAGE, SHEETS, with_table


def test_the_table_of_strengths_is_that_of_the_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "run `python -m docs.nag_gallery`"


def test_each_picture_is_shown_and_small() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in (IMAGES, *(sheet.name for sheet in SHEETS)):
        assert f"]({name})" in page
        assert 10_000 < (PAGE.parent / name).stat().st_size < 200_000
