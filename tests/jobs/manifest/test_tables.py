"""Tables and lists as spreadsheets, pandas and people write them: read as meant, or refused."""

import csv
import io
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import ManifestError
from jobs.manifest.manifest import open_manifest
from jobs.types import ClipSpec
from tests.fakes.catalog import FakeCatalog

Write = Callable[[str, str | bytes], Path]

PROMPTS = ["a cat; a dog, running", 'a "red" cat\nin the rain', "grün"]
# As pandas 3.1 writes a table: whole numbers are floats, since the second row leaves them out.
PANDAS = (
    "prompt,negative_prompt,seed,fps,num_frames,meta.take\n"
    '"a cat; a dog, running",red,3.0,8.0,17,1.0\n'
    '"a ""red"" cat\nin the rain",,,,,\n'
    "grün,,9007199254740991.0,12.5,21,2.5\n"
)
PANDAS_GERMAN = (  # to_csv(index=False, sep=";", decimal=",")
    "prompt;negative_prompt;seed;fps;num_frames;meta.take\n"
    '"a cat; a dog, running";red;3,0;8,0;17;1,0\n'
    '"a ""red"" cat\nin the rain";;;;;\n'
    "grün;;9007199254740991,0;12,5;21;2,5\n"
)
PANDAS_QUOTED = (  # to_csv(index=False, quoting=csv.QUOTE_ALL)
    '"prompt","negative_prompt","seed","fps","num_frames","meta.take"\n'
    '"a cat; a dog, running","red","3.0","8.0","17","1.0"\n'
    '"a ""red"" cat\nin the rain","","","","",""\n'
    '"grün","","9007199254740991.0","12.5","21","2.5"\n'
)
LIBREOFFICE_GERMAN = (  # in the form in which LibreOffice 7.4 writes a table
    "prompt;negative_prompt;seed;fps;num_frames;nag_scale;meta.take\n"
    '"a cat; a dog, running";red;3;8;17;4,5;1,0\n'
    '"a ""red"" cat\nin the rain";;;;;;\n'
    ";;;;;;\n"
    "grün;;9007199254740991;12,5;21;1,125;2,5\n"
)
# Excel with a German locale: a mark, CR LF, empty columns and rows behind the last one.
SPREADSHEET_GERMAN = (
    "\ufeffprompt;negative_prompt;seed;fps;num_frames;meta.take;;\r\n"
    '"a cat; a dog, running";red;3;8;17;1.0;;\r\n'
    '"a ""red"" cat\nin the rain";;;;;;;\r\n'
    ";;;;;;;\r\n"
    "grün;;9007199254740991;12,5;21;2.5;;\r\n"
    ";;;;;;;\r\n"
)
UNICODE_TEXT = (  # Excel's "Unicode text"
    "prompt\tnegative_prompt\tseed\tfps\tnum_frames\tmeta.take\r\n"
    '"a cat; a dog, running"\tred\t3\t8\t17\t1.0\r\n'
    '"a ""red"" cat\nin the rain"\t\t\t\t\t\r\n'
    "grün\t\t9007199254740991\t12.5\t21\t2.5\r\n"
)
TABLES = {
    "pandas.csv": PANDAS,
    "pandas_german.csv": PANDAS_GERMAN,
    "pandas_quoted.csv": PANDAS_QUOTED,
    "tabs.tsv": PANDAS.replace('"a cat; a dog, running"', "a cat; a dog. running")
    .replace(",", "\t")
    .replace("dog.", "dog,"),
    "libreoffice.csv": LIBREOFFICE_GERMAN,
    "libreoffice.tsv": LIBREOFFICE_GERMAN.replace("cat; a", "cat: a")
    .replace(";", "\t")
    .replace("cat: a", "cat; a")
    .encode("utf-16"),
    "sheet.csv": SPREADSHEET_GERMAN,
    "named.csv": "sep=;\r\n" + SPREADSHEET_GERMAN.removeprefix("\ufeff"),
    "named_and_marked.csv": "\ufeffsep=;\r\n" + SPREADSHEET_GERMAN.removeprefix("\ufeff"),
    "tabs.csv": UNICODE_TEXT,
    "little.tsv": ("\ufeff" + UNICODE_TEXT).encode("utf-16-le"),
    "big.tsv": ("\ufeff" + UNICODE_TEXT).encode("utf-16-be"),
    "bars.csv": PANDAS_GERMAN.replace("cat; a", "cat: a").replace(";", "|").replace(": a", "; a"),
}


def read(path: Path, catalog: FakeCatalog, extra_columns: Collection[str] = ()) -> list[ClipSpec]:
    return list(open_manifest(path, catalog, model="tiny", extra_columns=extra_columns).specs())


def refusal(path: Path, catalog: FakeCatalog, extra_columns: Collection[str] = ()) -> str:
    with pytest.raises(ManifestError) as caught:
        read(path, catalog, extra_columns)
    return str(caught.value).removeprefix(f"{path}:")


def test_a_comma_is_decimal_below_one_that_cannot_separate_thousands(
    write: Write, catalog: FakeCatalog
) -> None:
    specs = read(write("a.csv", LIBREOFFICE_GERMAN), catalog)
    assert [spec.request.nag.nag_scale for spec in specs] == [4.5, 9, 1.125]


@pytest.mark.parametrize("half", ['"b', '"b\n', '"b\nc', '"b\nc\n'])
def test_a_row_that_is_cut_inside_its_quotes_is_left_for_the_next_run(
    half: str, write: Write, catalog: FakeCatalog
) -> None:
    path = write("a.csv", "prompt,seed\na,1\n" + half)
    manifest = open_manifest(path, catalog, model="tiny")
    with path.open("a") as file:
        file.write('d",2\n')
    assert [spec.request.prompt for spec in manifest.specs()] == ["a"]
    assert len(read(path, catalog)) == 2


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_as_its_writer_meant_it(
    name: str, write: Write, catalog: FakeCatalog
) -> None:
    specs = read(write(name, TABLES[name]), catalog)
    requests = [spec.request for spec in specs]
    assert [one.prompt for one in requests] == PROMPTS
    assert [one.negative_prompt for one in requests] == ["red", "", ""]
    assert [one.sampling.seed for one in requests] == [3, 0, 2**53 - 1]
    assert [one.fps for one in requests] == [8, 8, 12.5]
    assert [one.shape.num_frames for one in requests] == [17, 17, 21]
    takes = [spec.meta.get("take", "") for spec in specs]
    assert [take.replace(",", ".") for take in takes] == ["1.0", "", "2.5"]


# name, content, the line and a part of the message
REFUSED: dict[str, tuple[str, str | bytes, int, str]] = {
    "the index of pandas": ("a.csv", ",prompt\n0,a\n", 2, "column 1 has no name"),
    "the header of another separator": (
        "a.csv", "sep=;\nprompt,seed\na,3\n", 2, "';' separates columns here"
    ),
    "an open quote": ("a.csv", 'prompt,seed\na,1\n"b,2\nc,3\n', 3, "is a quote left open?"),
    "notes as one column": ("a.csv", "prompt,meta\na,b\n", 1, "columns, such as meta.shot"),
    "a separator that tables do not have": ("a.csv", "sep=:\nprompt\n", 1, "sep= must name one of"),
    "two separators in the header": ("a.csv", "prompt,x;seed\na,3\n", 1, "',' or ';' between"),
    "rows of another separator": ("a.csv", "prompt,seed\na;3\n", 2, "got 1; ',' separates cells"),
    "a comma without quotes": ("a.csv", "prompt\na cat, running\n", 2, "got 2; ',' separates"),
    "a semicolon without quotes": (
        "a.csv", "prompt;seed\na cat; a dog;3\n", 2, "got 3; ';' separates cells"
    ),
    "a value behind the last column": ("a.csv", "prompt,\na,b\n", 2, "expected 1 cell, as in"),
    "thousands or a fraction": (
        "a.csv", "prompt;nag_scale\na;1,125\n", 2, "it may be thousands or a fraction"
    ),
    "a whole number with thousands": ("a.csv", "prompt;seed\na;1.000\n", 2, "it may be thousands"),
    "thousands or a fraction above the first decimal comma": (
        "a.csv", "prompt;nag_scale\na;1,125\nb;4,5\n", 2, "it may be thousands or a fraction"
    ),
    "thousands in a German table": (
        "a.csv", "prompt;fps;seed\na;12,5;1.234\n", 2, "it may be thousands or a fraction"
    ),
    "two decimal marks": (
        "a.csv", "prompt;fps\na;12,5\nb;12.5\n", 3, "'.' and one on line 2 has ','"
    ),
    "a fraction for a whole number": ("a.csv", "prompt;seed\na;1,5\n", 2, "a whole number or"),
    "digits that a float may have lost": (
        "a.csv", "prompt,seed\na,9007199254740992.0\n", 2, "may have lost digits"
    ),
    "a large seed of pandas": (
        "a.csv", "prompt,seed\na,1.152921504606847e+18\n", 2, "may have lost digits"
    ),
    "a missing number": ("a.csv", "prompt,seed\na,NaN\n", 2, "leave it out for the default"),
    "a missing text": ("a.csv", "prompt,negative_prompt\na,None\n", 2, "leave the cell empty"),
    "a formula that failed": ("a.csv", "prompt\n#NAME?\n", 2, "a failed formula"),
    "a German formula that failed": ("a.csv", "prompt\n#WERT!\n", 2, "a failed formula"),
    "another word for true": (
        "a.csv", "prompt,ring,across_hosts\na,2,WAHR\n", 2, "must be true or false, not 'WAHR'"
    ),
    "Excel's CSV without UTF-8": ("a.csv", "prompt\nü\n".encode("cp1252"), 2, "Excel: CSV UTF-8"),
    "UTF-16 without its mark": ("a.tsv", "prompt".encode("utf-16-le"), 1, "save the file as UTF-8"),
    "half a character": ("a.tsv", "\ufeffprompt\na".encode("utf-16-le")[:-1], 2, "expected UTF-16"),
    "an unknown column": (
        "a.csv", "prompt,shot\na,1\n", 1, "name it meta.NAME or set extra_columns=[NAME]"
    ),
    "an unknown field": ("a.jsonl", '{"prompt": "a", "shot": 1}', 1, "name it meta.NAME or set"),
    "a note twice": ("a.csv", "prompt,meta.a,meta.a\na,1,2\n", 1, "'meta.a' is there twice"),
    "a note without a name": ("a.csv", "prompt,meta.\na,1\n", 2, "1 to 100 printable characters"),
    "a note in two places": (
        "a.jsonl", '{"prompt": "a", "meta": {"a": 1}, "meta.a": 2}', 1, "meta.a is given twice"
    ),
    "a list as a note": ("a.jsonl", '{"prompt": "a", "meta": {"a": [1]}}', 1, "must be a text or"),
    "notes that are a text": ("a.jsonl", '{"prompt": "a", "meta": "b"}', 1, "must be a mapping"),
    "long notes": ("a.csv", f"prompt,meta.a,meta.b\na,{'b' * 9_999},{'c' * 10_000}\n", 2,
        "meta has 20,001 characters; at most 20,000"),
    "a control character in a note": ("a.csv", "prompt,meta.a\na,b\x07\n", 2, "U+0007"),
    "a comment in a list": ("a.txt", "a\n # night 2\n", 2, "a list of texts has no comments"),
    "a table as a list": ("a.txt", "\nprompt;seed\na;3\n", 2, "as the header of a table does"),
    "one column as a list": ("a.txt", "prompt\na\n", 1, "as the header of a table does"),
    "lines of an old Mac in a list": ("a.txt", b"a cat\ra dog\r", 1, "lines end in CR"),
    "JSONL as a list": ("a.txt", '{"prompt": "a"}\n', 1, "name a file of them .jsonl"),
    "YAML as a list": ("a.txt", "model: tiny\nclips: []\n", 1, "begins with the field model"),
    "a field before each text": ("a.txt", "prompt: a\n", 1, "write the text alone"),
    "a blank before a quote":
        ("a.csv", 'prompt,negative_prompt\n"a", "b"\n', 2, "remove the blank"),
    "a blank before a quoted separator":
        ("a.csv", 'prompt,seed\na,1\n "b, c",2\n', 3, "remove the blank"),
    "a blank before a quoted field": ("a.csv", 'prompt, "seed"\na,1\n', 1, "remove the blank"),
    "tabs in a list": ("a.txt", "a cat\t3\n", 1, "name a table .tsv"),
    "no prompt in a list": ("a.txt", "\n \n", 1, "expected at least one clip"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_with_two_readings_is_refused_with_the_remedy(
    case: str, write: Write, catalog: FakeCatalog
) -> None:
    name, content, line, part = REFUSED[case]
    message = refusal(write(name, content), catalog)
    assert message.startswith(f"{line}: ")
    assert part in message


def test_the_only_column_may_hold_what_separates_other_tables(
    write: Write, catalog: FakeCatalog
) -> None:
    for name, text in (
        ("a.csv", "prompt\na; b\n"),
        ("b.csv", "sep=;\nprompt\na, b\n"),
        ("c.tsv", "prompt\na, b; c\n"),
        ("d.txt", "a, b; c\n"),
    ):
        (spec,) = read(write(name, text), catalog)
        assert spec.request.prompt == text.splitlines()[-1]


def test_blanks_and_quotes_inside_of_quotes_are_text(write: Write, catalog: FakeCatalog) -> None:
    (spec,) = read(write("a.csv", 'prompt,seed\n" ""a"", ""b\nc""",3\n'), catalog)
    assert spec.request.prompt == ' "a", "b\nc"'


def test_a_list_has_a_prompt_a_line(write: Write, catalog: FakeCatalog) -> None:
    path = write("a.txt", "\ufeffa cat: running #2\r\n\r\n  'two', \"dogs\" \n\nlast")
    specs = read(path, catalog)
    assert [spec.request.prompt for spec in specs] == [
        "a cat: running #2", "  'two', \"dogs\" ", "last"
    ]  # fmt: skip
    assert [spec.name for spec in specs] == ["a-000000", "a-000001", "a-000002"]


def test_ndjson_is_jsonl(write: Write, catalog: FakeCatalog) -> None:
    row = '{"prompt": "a", "seed": 3.0, "fps": 8}'  # 3.0 as pandas' to_json writes it
    (one,), (other,) = (read(write(f"a.{suffix}", row), catalog) for suffix in ("jsonl", "ndjson"))
    assert one == other
    assert one.request.sampling.seed == 3


def test_capital_letters_of_true_are_those_of_pandas_or_a_spreadsheet(
    write: Write, catalog: FakeCatalog
) -> None:
    path = write("a.csv", "prompt,ring,across_hosts\na,2,True\nb,2,FALSE\n")
    assert [spec.parallel.across_hosts for spec in read(path, catalog)] == [True, False]


# notes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "prompt,meta.shot,Shot No.,meta.empty\na,x,12,\n"),
        ("a.jsonl", '{"prompt": "a", "meta": {"shot": "x", "empty": null}, "Shot No.": 12}'),
        ("a.jsonl", '{"prompt": "a", "meta.shot": "x", "meta": {"Shot No.": 12, "empty": ""}}'),
        ("a.yaml", "clips: [{prompt: a, meta: {shot: x, empty: }, Shot No.: 12}]"),
        ("a.yaml", "defaults: {meta: {shot: x, Shot No.: 12}}\naxes: {prompt: [a]}"),
        ("a.yaml", "clips:\n- prompt: a\n  meta.shot: x\n  meta:\n    Shot No.: 12"),
    ],
)
def test_notes_are_texts_in_every_format_and_no_part_of_the_clip(
    name: str, text: str, write: Write, catalog: FakeCatalog
) -> None:
    (spec,) = read(write(name, text), catalog, ["Shot No."])
    (bare,) = read(write("bare.csv", "prompt\na\n"), catalog)
    assert spec.meta == {"shot": "x", "Shot No.": "12"}
    assert spec.clip_id == bare.clip_id


def test_a_note_keeps_all_digits_of_a_number_that_python_does_not_read(
    write: Write, catalog: FakeCatalog
) -> None:
    (spec,) = read(write("a.jsonl", f'{{"prompt": "a", "meta.n": -{"9" * 5000}}}'), catalog)
    assert spec.meta == {"n": "-" + "9" * 5000}


def test_the_notes_of_a_clip_replace_those_of_the_defaults(
    write: Write, catalog: FakeCatalog
) -> None:
    text = (
        "defaults: {meta: {a: x}}\nclips: [{prompt: a}, {prompt: b, meta: {c: yes, d: 2024-01-01}}]"
    )
    specs = read(write("a.yaml", text), catalog)
    assert [spec.meta for spec in specs] == [{"a": "x"}, {"c": "yes", "d": "2024-01-01"}]


@pytest.mark.parametrize("name", ["seed", "ulysses", "guidance", "meta"])
def test_an_extra_column_cannot_be_a_field(name: str, write: Write, catalog: FakeCatalog) -> None:
    assert f"extra_columns names {name}, which" in refusal(write("a.txt", "a"), catalog, [name])


@pytest.mark.parametrize("name", ["meta", "meta.shot", "shot"])
def test_notes_are_no_axis(name: str, write: Write, catalog: FakeCatalog) -> None:
    path = write("a.yaml", f"axes:\n  prompt: [a]\n  {name}: [b]\n")
    assert refusal(path, catalog, ["shot"]).startswith(f"3: {name} belongs to one clip")


# texts in YAML that are something else without quotes

UNQUOTED: dict[str, tuple[str, int, str]] = {
    "a colon": ("clips:\n- prompt: a: b\n", 2, "put a text that holds ': ' in quotes"),
    "a colon in braces": ("clips:\n- {prompt: a: b}\n", 2, "put a text that holds ': ' in quotes"),
    "a colon in an axis": ("axes:\n  prompt:\n  - a: b\n", 3, "holds ': ' in quotes"),
    "a colon in brackets": ("axes:\n  prompt: [a: b, c]\n", 2, "holds ': ' in quotes"),
    "a colon at the end": ("axes:\n  prompt:\n  - a cat:\n", 3, "holds ': ' in quotes"),
    "a colon behind a comma": ("clips:\n- prompt: a cat, far: b\n", 2, "holds ': ' in quotes"),
    "a colon behind an apostrophe":
        ("clips:\n- {prompt: it's a cat: b}\n", 2, "put a text that holds ': ' in quotes"),
    "a colon on a second line":
        ("clips:\n- prompt: a cat,\n    far: b\n", 3, "mend the indentation, or put a text"),
    "a tab": ("clips:\n\t- prompt: a\n", 2, "indent with spaces, not with tabs"),
    "a number sign in a clip's name":
        ("clips:\n- prompt: a\n  name: take #1\n", 3, "name is 'take' and a comment, '#1'"),
    "a number sign in the name": ("name: take #1\nclips: []\n", 1, "name is 'take' and a comment"),
    "a number sign in the output": ("output: ./take #1\n", 1, "output is './take' and a comment"),
    "a number sign in the name of a file":
        ("axes:\n  prompt:\n    file: head #1.txt\n", 3, "file is 'head' and a comment"),
    "a number sign in braces":
        ("clips:\n- {prompt: a #1}\n", 3, "begins on line 2; ' #' begins a comment"),
    "a number sign between two lines":
        ("clips:\n- prompt: a #1\n    b\n", 3, "begins on line 2; ' #' begins a comment"),
    "a number sign": ("clips:\n- prompt: a cat #2\n", 2, "prompt is 'a cat' and a comment, '#2'"),
    "a number sign in an axis":
        ("axes:\n  negative_prompt:\n  - a\n  - b # c\n", 4, "'b' and a comment, '# c'"),
    "a number sign on a second line":
        ("clips:\n- prompt: a cat\n    runs #1\n", 2, "'a cat runs' and a comment, '#1'"),
    "a number sign at the beginning":
        ("clips:\n- prompt: #1 car\n", 2, "prompt is a comment, '#1 car'; put the text in quotes"),
    "a number sign in a note": ("clips:\n- prompt: a\n  meta: {b: c #1\n  }\n", 3, "and a comment"),
    "a comma in braces":
        ("clips:\n- {prompt: a, running}\n", 2, "put a text that holds ',' in quotes"),
    "a star": ("clips:\n- prompt: *star* wars\n", 2, "begin with *, put all of it in quotes"),
    "an alias": ("clips:\n- prompt: *star\n", 2, "quote a text with '*'"),
    "an ampersand": ("clips:\n- prompt: &co\n", 2, "quote a text with '&'"),
    "an exclamation mark": ("clips:\n- prompt: ! bang\n", 2, "a text that begins with '!'"),
    "a percent sign": ("axes:\n  prompt: [%d cats]\n", 2, "begin with %, put all of it in quotes"),
    "an at sign": ("clips:\n- prompt: @home\n", 2, "begin with @, put all of it in quotes"),
    "a back quote": ("clips:\n- prompt: `a`\n", 2, "begin with `, put all of it in quotes"),
    "a bracket": ("clips:\n- prompt: [wide] a\n", 2, "begin with [, put all of it in quotes"),
    "brackets alone": ("axes:\n  prompt:\n  - [wide]\n", 3, "begins with [ in quotes"),
    "a brace": ("clips:\n- prompt: {a} b\n", 2, "begin with {, put all of it in quotes"),
    "a quote": ('clips:\n- prompt: "a" b\n', 2, "use the other kind of quotes"),
    "an apostrophe in single quotes":
        ("clips:\n- prompt: 'it's a cat'\n", 2, "use the other kind of quotes"),
    "a backslash": ('clips:\n- prompt: "50\\% off"\n', 2, "a backslash is written twice"),
    "an apostrophe":
        ("clips:\n- prompt: 'tis a\n", 3, "line 2; a text that begins with ' ends at the next one"),
    "greater than": ("clips:\n- prompt: > 5 cats\n", 2, "begin with >, put all of it in quotes"),
    "a bar": ("clips:\n- prompt: | a\n", 2, "begin with |, put all of it in quotes"),
    "a dash": ("clips:\n- prompt: - a\n", 2, "begin with -, put all of it in quotes"),
    "a question mark": ("clips:\n- prompt: ? a\n", 2, "begin with ?, put all of it in quotes"),
    "yes": ("clips:\n- prompt: yes\n", 2, "which YAML reads as a yes/no value: put it in quotes"),
    "a time": ("clips:\n- prompt: 12:30\n", 2, "a number that is not plain decimal: put it in"),
    "a number": ("clips:\n- prompt: 007\n", 2, "not plain decimal: put it in quotes"),
    "a table": ("axes:\n  prompt: {file: a.csv}\n", 2, "takes a file with one value a line"),
    "a list with a header": ("axes:\n  prompt: {file: head.txt}\n", 1, "the header of a table"),
    "a list with a comment": ("axes:\n  prompt: {file: note.txt}\n", 2, "has no comments"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNQUOTED)
def test_a_text_that_is_something_else_without_quotes_is_refused_with_advice(
    case: str, write: Write, catalog: FakeCatalog
) -> None:
    write("head.txt", "prompt\na\n")
    write("note.txt", "a\n# b\n")
    text, line, part = UNQUOTED[case]
    path = write("a.yaml", text)
    message = (
        refusal(path, catalog)
        .replace(str(path.parent / "head.txt:"), "")
        .replace(str(path.parent / "note.txt:"), "")
    )
    assert message.startswith(f"{line}: ")
    assert part in message


def test_a_comment_may_stand_behind_what_it_cannot_cut(write: Write, catalog: FakeCatalog) -> None:
    text = (
        "model: tiny #1\nname: a # the name\nclips: # all\n- prompt: 'a #1' # quoted\n"
        "  seed: 3 # a number\n  # a line\n  negative_prompt: a#1\n- {prompt: b} # a mapping\n"
    )
    one, other = (spec.request for spec in read(write("a.yaml", text), catalog))
    assert (one.prompt, one.negative_prompt, one.sampling.seed) == ("a #1", "a#1", 3)
    assert other.prompt == "b"


# a table of any dialect holds what was written into it

texts = st.text("ab é,;\t|\"\n'#=\u0a0aĊ", min_size=1, max_size=12).filter(str.strip)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[dict[str, Any]], bytes]:
    """Return rows of values, and a table of them in one of the dialects."""
    rows = draw(
        st.lists(
            st.fixed_dictionaries(
                {"prompt": texts},
                optional={
                    "negative_prompt": texts,
                    "seed": st.integers(0, 2**63 - 1),
                    "nag_scale": st.floats(1, 50) | st.integers(1, 50),
                    "meta.note": texts,
                    "Shot; No.": texts,
                },
            ),
            min_size=1,
            max_size=4,
        )
    )
    columns = draw(st.permutations(["prompt", "negative_prompt", "seed", "nag_scale",
                                    "meta.note", "Shot; No."]))  # fmt: skip
    separator = draw(st.sampled_from(",;\t|"))
    comma, floats = draw(st.booleans()), draw(st.booleans())

    def cell(value: Any) -> str:
        if isinstance(value, int) and floats and value < 2**53:
            value = float(value)
        text = str(value)
        return text.replace(".", ",") if comma and not isinstance(value, str) else text

    stream = io.StringIO(newline="")
    end = draw(st.sampled_from(["\n", "\r\n"]))
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
    style: Any = {"delimiter": separator, "lineterminator": end, "quoting": quoting}
    writer = csv.writer(stream, **style)
    num_empty = draw(st.integers(0, 2))
    writer.writerow([*columns, *[""] * num_empty])
    for row in rows:
        cells = [cell(row[name]) if name in row else "" for name in columns]
        writer.writerow([*cells, *[""] * num_empty])
    writer.writerows([[""] * len(columns)] * draw(st.integers(0, 2)))
    head = f"sep={separator}{end}" if draw(st.booleans()) else ""
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    return rows, (head + stream.getvalue()).encode(encoding)


@given(table=tables(), suffix=st.sampled_from(["csv", "tsv"]))
def test_a_table_of_any_dialect_holds_what_was_written_or_is_refused(
    table: tuple[list[dict[str, Any]], bytes],
    suffix: str,
    catalog: FakeCatalog,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    rows, content = table
    folder = tmp_path_factory.getbasetemp()
    path, expected = folder / f"dialect.{suffix}", folder / "dialect.jsonl"
    path.write_bytes(content)
    expected.write_text("\n".join(map(json.dumps, rows)))
    extra = ["Shot; No."]
    try:
        found = read(path, catalog, extra)
    except ManifestError as error:
        assert "it may be thousands" in str(error)  # noqa: PT017
        return
    assert found == read(expected, catalog, extra)
