"""Parts of the manual that are made from the code.

A page holds a marker, an HTML comment that GitHub hides; the site shows the generated text there.
"""

import argparse
import json
import os
import types
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import nag
from jobs.cli.main import make_parser
from jobs.ending import ExitCode
from jobs.manifest.reference import meanings
from jobs.metrics.definitions import METRICS
from jobs.settings.run_config import RunConfig
from jobs.tables.columns import CLIP_COLUMNS, STAGE_COLUMNS, Column
from pipelines.catalog.model_config import ModelConfig


def commands() -> str:
    """Return the help of every command, a section each."""
    program = make_parser()
    (action,) = (one for one in program._actions if isinstance(one, argparse._SubParsersAction))
    parsers = {"nagfarm": program} | {one.prog: one for one in action.choices.values()}
    earlier = dict(os.environ)
    os.environ["COLUMNS"] = "98"  # argparse's own way to set the width of a help
    try:
        helps = {name: parser.format_help() for name, parser in parsers.items()}
    finally:
        os.environ.clear()
        os.environ.update(earlier)
    return "\n".join(f"## {name}\n\n```text\n{text}```\n" for name, text in helps.items())


def exit_codes() -> str:
    """Return a table of the exit codes."""
    rows = [f"| {int(code)} | {code.meaning} |" for code in ExitCode]
    return "\n".join(["| code | meaning |", "|---|---|", *rows])


def metrics() -> str:
    """Return a table of the metrics of a run."""
    rows = [
        f"| `{one.exported_name}` | {one.kind} | {', '.join(one.labels)} | {one.help} |"
        for one in METRICS
    ]
    return "\n".join(["| metric | kind | labels | meaning |", "|---|---|---|---|", *rows])


def model_yaml() -> str:
    """Return the tables of a model's YAML: its keys, then those of each mapping in it."""
    return _tables(ModelConfig, "")


def clip_columns() -> str:
    """Return a table of the columns of the table of clips."""
    return _columns(CLIP_COLUMNS)


def stage_columns() -> str:
    """Return a table of the columns of the table of stages."""
    return _columns(STAGE_COLUMNS)


def _columns(columns: tuple[Column, ...]) -> str:
    rows = [
        f"| `{one.name}` | {one.type_text} | {one.meaning or f'`{one.path}` of the record'} |"
        for one in columns
    ]
    return "\n".join(["| column | type | meaning |", "|---|---|---|", *rows])


def settings() -> str:
    """Return the tables of a run's settings, a group each."""
    return _tables(RunConfig, "")


def api() -> str:
    """Return the directives that document every public name of `nag`, by kind."""
    kinds: dict[str, list[str]] = {"Functions": [], "Classes": [], "Errors": []}
    for name in nag.__all__:
        value = getattr(nag, name)
        if isinstance(value, type) and issubclass(value, Exception):
            kinds["Errors"].append(f".. autoexception:: nag.{name}")
        elif isinstance(value, types.FunctionType):
            kinds["Functions"].append(f".. autofunction:: nag.{name}")
        else:
            kinds["Classes"].append(f".. autoclass:: nag.{name}\n   :members:")
    return "\n".join(
        f"## {kind}\n\n```{{eval-rst}}\n" + "\n\n".join(directives) + "\n```\n"
        for kind, directives in kinds.items()
    )


def _tables(owner: type, prefix: str) -> str:
    """Return a table of a dataclass's fields, and below it those of the dataclasses in it."""
    hints, meaning = get_type_hints(owner), {}
    for base in reversed(owner.__mro__):
        meaning |= meanings(base)
    parts = {one.name: hints[one.name] for one in fields(owner) if is_dataclass(hints[one.name])}
    rows = [
        f"| `{prefix}{one.name}` | {_type_text(hints[one.name])} | {_default_text(one)} | "
        f"{meaning.get(one.name, '')} |"
        for one in fields(owner)
        if one.name not in parts
    ]
    table = ["| key | value | default | meaning |", "|---|---|---|---|", *rows] if rows else []
    text = "\n".join([*table, ""])
    for name, part in parts.items():
        summary = (part.__doc__ or "").partition("\n\n")[0].replace("\n    ", " ")
        text += f"\n**`{prefix}{name}`**: {summary}\n\n{_tables(part, f'{prefix}{name}.')}"
    return text


def _type_text(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return ", ".join(f"`{one}`" for one in get_args(hint))
    if get_origin(hint) in (types.UnionType, Union):
        return " or ".join(_type_text(one) for one in get_args(hint))
    words = {str: "text", int: "whole number", float: "number", bool: "yes/no", dict: "mapping"}
    words |= {tuple: "list", list: "list", type(None): "null"}
    return words.get(get_origin(hint) or hint, getattr(hint, "__name__", str(hint)))


def _default_text(one: Field[Any]) -> str:
    value = one.default_factory() if one.default_factory is not MISSING else one.default
    if value is MISSING:
        return "required"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value) or "none"
    return f"`{json.dumps(value)}`"


GENERATED: dict[str, Callable[[], str]] = {
    f"<!-- generated: {write.__name__} -->": write
    for write in (
        commands,
        exit_codes,
        metrics,
        model_yaml,
        settings,
        api,
        clip_columns,
        stage_columns,
    )
}
