"""The mechanical rules of the project's prose: first words, banned phrases, line length.

Reads docstrings and comments of Python files and the paragraphs of Markdown pages.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BROKEN_LINK = re.compile(r"\]\([^)]*$")
MAX_LINE_CHARACTERS = 100
EXEMPT = frozenset({"tests/prose.py", "tests/test_prose.py"})  # they hold the phrases themselves
FIRST_WORDS = frozenset(
    {"what", "which", "whose", "that", "of", "where", "whether", "how", "those"}
)
BANNED = {
    r"\b(?:is|are|was|were) no (?!longer\b|(?:more|less|later|earlier) than\b)": "is no ...",
    r"\b(?:nobody|somebody|anybody)\b": "nobody, somebody, anybody",
    r"\b(?:is|are|was|were) told\b": "is told",
    r"\bis said of\b": "is said of",
    r"\b(?:gave|give|gives|given|giving) up\b": "given up: write quarantined, or stopped waiting",
    r"\bsafer (?:setting|attention)\b|\bsafe attention\b": "safer setting: write exact attention",
    r"\b(?:accused|courtroom|witness(?:es|ed)?)\b": "accused, witness: write attributed, bystander",
    r"\bblam(?:e|es|ed|ing)\b": "blame: write attribute",
    r"\bset aside\b": "set aside: write replaced (a worker) or cordoned (a node)",
    r"\blast word\b|\bword from\b": "last word: write last heartbeat",
    r"\bsay of (?:itself|themselves)\b|\bsays of (?:itself|themselves)\b": "says of itself",
}


@dataclass(frozen=True)
class Finding:
    """A line of prose that breaks a rule."""

    path: str
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text.strip().splitlines()[0][:100]}"


@cache
def docstrings(path: Path) -> tuple[tuple[int, str], ...]:
    """Return each docstring of a module, its classes and functions, with its first line number."""
    kinds = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    return tuple(
        (node.body[0].lineno, text)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, kinds) and (text := ast.get_docstring(node, clean=False))
    )


def arguments(text: str) -> Iterator[tuple[int, str]]:
    """Yield the first words of each entry under `Args:` and `Returns:`, with its line offset."""
    section = ""
    for offset, line in enumerate(text.splitlines()):
        if heading := re.fullmatch(r"\s*(Args|Returns|Raises|Yields|Source):", line):
            section = heading[1]
        elif section == "Args" and (entry := re.match(r"\s*[*\w`, ]+: (.*)", line)):
            yield offset, entry[1]
        elif section in {"Returns", "Yields"} and line.strip():
            yield offset, line.strip()
            section = ""


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each comment with its line number; a block of comment lines counts once."""
    last_block_line = -1
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type != tokenize.COMMENT:
            continue
        is_whole_line = token.line.lstrip().startswith("#")
        if not (is_whole_line and token.start[0] == last_block_line + 1):
            yield token.start[0], token.string
        if is_whole_line:
            last_block_line = token.start[0]


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """Yield string constants that hold a sentence: errors, log lines, help texts."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def first_word(text: str) -> str:
    words = re.findall(r"[\w']+", text)
    return words[0].lower() if words else ""


def check_python(path: Path, name: str) -> Iterator[Finding]:
    """Yield what breaks a rule in a Python file."""
    for line, text in docstrings(path):
        if first_word(text) in FIRST_WORDS:
            yield Finding(name, line, f"docstring begins with {first_word(text)!r}", text.strip())
        for offset, entry in arguments(text):
            if first_word(entry) in FIRST_WORDS:
                rule = f"entry begins with {first_word(entry)!r}"
                yield Finding(name, line + offset, rule, entry)
    remarks = tuple(comments(path))
    for line, text in remarks:
        if first_word(text) in FIRST_WORDS:
            yield Finding(name, line, f"comment begins with {first_word(text)!r}", text)
    for line, text in (*messages(path), *remarks):
        yield from _banned(name, line, text)
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if len(text) > MAX_LINE_CHARACTERS and "noqa: E501" not in text:
            yield Finding(name, line, f"longer than {MAX_LINE_CHARACTERS} characters", text)


def check_markdown(path: Path, name: str) -> Iterator[Finding]:
    """Yield what breaks a rule in a page; code, tables and lines with a link may be long."""
    is_code = False
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if text.startswith("```"):
            is_code = not is_code
        if is_code:
            continue
        is_free = text.startswith(("|", "![", "#")) or "](" in text
        if len(text) > MAX_LINE_CHARACTERS and not is_free:
            yield Finding(name, line, f"longer than {MAX_LINE_CHARACTERS} characters", text)
        if BROKEN_LINK.search(text):
            yield Finding(name, line, "a link's target goes on in the next line", text)
        yield from _banned(name, line, text)


def check_prose(root: Path, names: list[str]) -> list[Finding]:
    """Return what breaks a rule in the Python files and pages among `names`."""
    found: list[Finding] = []
    for name in names:
        path = root / name
        if path.suffix == ".py":
            found += check_python(path, name)
        elif path.suffix == ".md":
            found += check_markdown(path, name)
    return found


def _banned(name: str, line: int, text: str) -> Iterator[Finding]:
    if name in EXEMPT:
        return
    for pattern, phrase in BANNED.items():
        for match in re.finditer(pattern, text, re.IGNORECASE):
            offset = text[: match.start()].count("\n")
            context = text[max(0, match.start() - 40) : match.end() + 40].replace("\n", " ")
            yield Finding(name, line + offset, f"banned phrase ({phrase})", context)
