"""Every command of the manual is one that its program takes, or has a rule for its program."""

import json
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass

import pytest

from jobs.cli.main import COMMANDS, EPILOG
from jobs.errors import ConfigError
from jobs.settings.run_config import RunConfig, load_config
from tests.builders import page_commands
from tests.builders.page_commands import NEEDS, WrongCommandError, check, check_fragment
from tests.builders.pages import SHELL, Block, blocks, inline_code, page_names, simple_commands
from tests.structure import ROOT

LANGUAGES = {*SHELL, "text", "yaml", "json", "jsonl", "python", "sql", "ini", "csv", "html"}


def shell_texts() -> list[str]:
    """Return every text with commands: blocks, and code within sentences."""
    return [*(block.text for block in blocks(*SHELL)), *(code for _, code in inline_code())]


def refusal(setting: str) -> str:
    """Return why a setting is refused. A right one may need another one beside it."""
    try:
        load_config(None, [setting])
    except ConfigError as error:
        return str(error)
    return ""


def problems(block: Block) -> list[str]:
    found: list[str] = []
    for statement in block.statements():
        for command in simple_commands(statement):
            try:
                check(command)
            except WrongCommandError as error:
                found.append(f"{block.place}: {statement.strip()}: {error}")
    return found


@pytest.mark.parametrize("page", page_names())
def test_every_command_of_a_page_is_one(page: str) -> None:
    assert [one for block in blocks(*SHELL, page=page) for one in problems(block)] == []


def test_bash_reads_every_command() -> None:
    script = "".join(f"f() {{\n{block.text}\n}}\n" for block in blocks("", "sh"))
    read = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert read.stderr == ""


def test_every_command_within_a_sentence_has_its_name_and_options() -> None:
    names = "|".join(COMMANDS)
    wrong: list[str] = []
    for page, code in inline_code():
        if re.match(rf"(RAY_\S+ )?(ray job .*-- )?nagfarm |({names}) --", code):
            try:
                check_fragment(code)
            except WrongCommandError as error:
                wrong.append(f"{page}: `{code}`: {error}")
    assert wrong == []


def test_every_setting_within_a_sentence_is_one() -> None:
    groups = "|".join(one.name for one in fields(RunConfig) if is_dataclass(one.type))
    found = [
        code for _, code in inline_code() if re.fullmatch(rf"({groups})\.[^=\s]+=[^\s.]+", code)
    ]
    assert len(found) >= 4
    unknown = [code for code in found if " not in " in refusal(code)]
    assert unknown == []


def test_a_page_names_the_program_and_no_folder_that_a_user_may_have() -> None:
    old = re.compile(r"python3? -m jobs(?!\.)")  # a folder `jobs` of the user would run
    assert [text for text in shell_texts() if old.search(text)] == []


def test_every_block_says_its_language() -> None:
    assert [one.place for one in blocks() if one.language not in LANGUAGES] == []
    for block in blocks("json"):
        json.loads(block.text)
    for block in blocks("python"):
        compile(block.text, block.place, "exec")


@pytest.mark.parametrize("program", NEEDS)
def test_a_rule_is_used_and_names_tests_that_exist(program: str) -> None:
    for path in re.findall(r"tests/[\w/]+\.py", NEEDS[program]):
        assert (ROOT / path).is_file()
    texts = [block.text for block in blocks(*SHELL)]
    assert any(re.search(rf"(^|\W){re.escape(program)} ", text) for text in texts)


def test_a_job_is_submitted_with_the_token_and_by_the_name_of_the_program() -> None:
    helps = [EPILOG, *(one.epilog for one in COMMANDS.values())]
    texts = [
        *(block.text for block in blocks(*SHELL)),
        *helps,
        *(code for _, code in inline_code()),
    ]
    found = [
        (text, line) for text in texts for line in re.findall(r".*ray job submit .*--.*", text)
    ]
    assert len(found) >= 3
    for text, line in found:
        assert re.search(r"-- nagfarm (render|doctor)|--entrypoint", line), line
        is_set = "RAY_AUTH_MODE=token ray job" in line or re.search(r"export .*RAY_AUTH_MODE", text)
        assert is_set or "--entrypoint" in line, line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nagfarm rendr spring.yaml", "the parser refuses it"),
        ("nagfarm render spring.yaml --no-such", "the parser refuses it"),
        ("RAY_AUTH_MODE=token ray job submit -- nagfarm rendr x", "the parser refuses it"),
        ("sudo make no-such-target", "the Makefile has no no-such-target"),
        ("python -m no.such.module", "has no module no.such.module"),
        ("nagfarm status x | frobnicate", "no rule for 'frobnicate'"),
        ("for x in a b; do\n  nagfarm rendr $x\ndone", "the parser refuses it"),
        ("x=$(nagfarm rendr x) # nothing", "the parser refuses it"),
    ],
)
def test_a_wrong_command_is_found(text: str, message: str) -> None:
    (found,) = problems(Block("page.md", 1, "sh", text))
    assert message in found


@pytest.mark.parametrize("text", ["nagfarm rendr x", "nagfarm render --wiat", "render --wiat 3"])
def test_a_wrong_command_within_a_sentence_is_found(text: str) -> None:
    with pytest.raises(WrongCommandError):
        check_fragment(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    sorted({name for text in shell_texts() for name in re.findall(r"python -m ([\w.]+)", text)}),
)
def test_a_program_of_the_repository_starts_and_has_the_options_of_its_page(module: str) -> None:
    page_commands.check_module(module)
    options = {
        option
        for text in shell_texts()
        for line in re.findall(rf"python -m {re.escape(module)}(?![\w.])(.*)", text)
        for option in re.findall(r"(?<!\S)--[\w-]+", line)
    }
    source = [sys.executable, "-m", module, "--help"]
    shown = subprocess.run(source, cwd=ROOT, capture_output=True, text=True, check=False)
    if shown.returncode == 0:
        assert [option for option in sorted(options) if option not in shown.stdout] == []
    else:
        assert not options
