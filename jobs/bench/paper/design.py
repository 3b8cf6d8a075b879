"""The clips of the paper's table: every prompt of a set by every model, number of steps and method.

The first method is the baseline. A clip of a method without the negative prompt carries it as the
note `unwanted`, so that all are asked about the same. Clips of one prompt have one seed, and stand
one after the other in the manifest, so that an interrupted run leaves whole comparisons.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from jobs.bench.design.options import METHODS, cfg_scale
from jobs.errors import RefusedError, RowValueError
from jobs.manifest.field_values import MAX_NAME_CHARACTERS
from jobs.manifest.tables.meta import META, UNWANTED, make_meta
from jobs.text import shown, unknown
from pipelines.catalog.model_config import ModelConfig
from pipelines.errors import RequestError
from pipelines.regular_files import read_bounded
from pipelines.texts import check_text

MAX_PROMPTS_BYTES = 64_000_000
DEFAULT_METHODS = ("none", "nag", "cfg")
# Fields that the design decides; a prompt set may not.
OWN_FIELDS = ("name", "model", "method", "guidance_scale", "num_inference_steps")
NEEDS_NEGATIVE = ("nag", "vsf", "nasa", "cfg+nag")


@dataclass(frozen=True, order=True)
class Setting:
    """A row of the table: a model, a number of steps and a guidance method."""

    model: str
    num_steps: int
    method: str

    @property
    def group(self) -> tuple[str, ...]:
        return (self.model, str(self.num_steps), self.method)


@dataclass(frozen=True)
class PlannedClip:
    """One clip of the design.

    Args:
        prompt: name of its prompt in the set.
        row: its row of the manifest.
    """

    setting: Setting
    prompt: str
    row: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        return str(self.row["name"])


def read_prompts(path: Path, limit: int | None) -> list[dict[str, Any]]:
    """Read the rows of a prompt set, as `nagfarm prompts` writes them.

    Raises:
        RefusedError: the file cannot be read, a line lacks a prompt, or a field is one that
            the design decides.
    """
    if path.suffix != ".jsonl":
        raise RefusedError(f"--prompts {path}: expected JSONL, as `nagfarm prompts` writes it")
    try:
        lines = read_bounded(path, MAX_PROMPTS_BYTES).decode().splitlines()
    except OSError as error:
        raise RefusedError(f"--prompts: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RefusedError(f"--prompts: {path} is not UTF-8: {error}") from error
    rows = [
        _checked(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not rows:
        raise RefusedError(f"--prompts: {path} has no prompt")
    return rows[:limit]


def _checked(where: str, line: str) -> dict[str, Any]:
    try:
        row: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict) or not isinstance(cast("dict[str, Any]", row).get("prompt"), str):
        raise RefusedError(f"{where}: expected an object with a prompt, got {shown(row)}")
    given = cast("dict[str, Any]", row)
    if decided := [name for name in OWN_FIELDS[1:] if name in given]:
        raise RefusedError(f"{where}: the benchmark decides {decided[0]}; leave it out of the set")
    if not isinstance(given.get(META, {}), dict):
        raise RefusedError(f"{where}: meta must be an object, got {shown(given[META])}")
    try:
        for name, value in given.items():
            if isinstance(value, str):
                check_text(name, value)
        make_meta(given.get(META, {}).items())
        json.dumps(given, ensure_ascii=False).encode()
    except (RequestError, RowValueError) as error:
        raise RefusedError(f"{where}: {error}") from error
    except UnicodeEncodeError as error:
        raise RefusedError(f"{where}: it holds half of a surrogate pair: {error}") from error
    return given


def settings_of(
    models: Sequence[ModelConfig], methods: Sequence[str], steps: Sequence[int]
) -> list[Setting]:
    """Return the rows of the table.

    Args:
        steps: numbers of steps; empty for each model's own.

    Raises:
        RefusedError: a method is unknown, or a number of steps is below 1.
    """
    for method in methods:
        if method not in METHODS:
            raise RefusedError(f"--method: {unknown('method', method, METHODS)}")
    if any(num < 1 for num in steps):
        raise RefusedError(f"--steps: expected at least 1, got {min(steps)}")
    return [
        Setting(config.name, num, method)
        for config in models
        for num in steps or (config.sampling.num_inference_steps,)
        for method in methods
    ]


def plan_clips(
    prompts: Iterable[Mapping[str, Any]],
    settings: Sequence[Setting],
    configs: Mapping[str, ModelConfig],
) -> Iterator[PlannedClip]:
    """Yield the clips of the design, prompt by prompt.

    Raises:
        RefusedError: a prompt has no negative prompt, and a method needs one.
    """
    for at, prompt in enumerate(prompts):
        name = str(prompt.get("name") or f"prompt-{at:05}")
        negative = str(prompt.get("negative_prompt") or "")
        notes = {**({UNWANTED: negative} if negative else {}), **prompt.get(META, {})}
        for setting in settings:
            if not negative and setting.method in NEEDS_NEGATIVE:
                raise RefusedError(
                    f"{name}: {setting.method} needs a negative prompt, and the set gives none; "
                    "write the set with --negative-prompt, or leave the method out"
                )
            is_plain = setting.method == "none"
            row = {**prompt, "seed": prompt.get("seed", at), META: notes}
            row |= {
                "name": _name_of(setting, name),
                "model": setting.model,
                "method": setting.method,
                "num_inference_steps": setting.num_steps,
                "negative_prompt": "" if is_plain else negative,
            }
            if setting.method.startswith("cfg"):
                row["guidance_scale"] = cfg_scale(configs[setting.model])
            yield PlannedClip(setting, name, row)


def _name_of(setting: Setting, prompt: str) -> str:
    """Return a name in which only characters allowed in a clip's name occur."""
    text = "-".join((prompt, setting.model, f"{setting.num_steps}-steps", setting.method))
    return re.sub(r"[^A-Za-z0-9.]+", "-", text)[-MAX_NAME_CHARACTERS:].strip("-.")
