"""Read configuration: small YAML of plain values, from files and from `key=value`.

Decides what every configuration refuses. `model_config` has the schema of models,
`jobs.settings.run_config` that of runs. Loads without torch.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pipelines.regular_files import read_bounded
from pipelines.texts import MAX_DIGITS

MAX_CONFIG_BYTES = 100_000  # PyYAML takes a second for the worst of this size, 100 s for 1 MB
MAX_DEPTH = 16  # lists and mappings inside one another; the schemas need four
MAX_BITS = 64  # for a whole number
_TOO_LONG = re.compile(rf"[-+]?[0-9][0-9_]{{{MAX_DIGITS - 1},}}(:[0-9:]*)?")
_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one of OmegaConf
# The errors of reading, merging and checking.
INVALID = (OmegaConfBaseException, YAMLError, ValueError, TypeError)


@cache
def schema(kind: type) -> DictConfig:
    """Return the schema that a dataclass gives OmegaConf, made once: it takes 10 ms and more."""
    return OmegaConf.structured(kind)


def read_file(path: Path) -> DictConfig:
    """Read a YAML of keys and plain values; an empty file has no keys.

    Raises:
        OSError: the file cannot be read, or is too large.
        INVALID: the file is not YAML, or holds a refused value.
    """
    text = read_bounded(path, MAX_CONFIG_BYTES).decode()
    return _checked([text], lambda: OmegaConf.create(text))


def read_overrides(overrides: Sequence[str]) -> DictConfig:
    """Read `key=value` texts, each with a key such as `workers.count` and a value as in YAML.

    Raises:
        INVALID: a text is not `key=value`, is not YAML, or holds a refused value.
    """
    for override in overrides:
        if "=" not in override:
            raise ValueError(f"{override!r} is not key=value, such as workers.count=2")
    values = [override.partition("=")[2] for override in overrides]
    return _checked(values, lambda: OmegaConf.from_dotlist(list(overrides)))


def _checked(texts: Sequence[str], read: Callable[[], DictConfig | ListConfig]) -> DictConfig:
    """Return the result of `read`, which parses these texts as YAML."""
    try:
        for text in texts:
            _check_events(text)
        loaded = read()
        if isinstance(loaded, ListConfig):
            raise TypeError("it must hold keys and their values, not a list")
        check_values(OmegaConf.to_container(loaded))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except AssertionError as error:  # OmegaConf raises it for a YAML that is one number
        raise TypeError("it must hold keys and their values, not one value") from error
    # PyYAML raises these for `!!timestamp soon` and `!!bool maybe`.
    except (AttributeError, KeyError) as error:
        raise ValueError(
            "a tag (!!) names a type that its value does not have; leave it out"
        ) from error
    return loaded


def _check_events(text: str) -> None:
    """Refuse a deeply nested YAML, and a number of more digits than Python reads.

    For the first PyYAML's loader in C needs more stack than there is, and would end the process.
    Its parser, which reads one event after another, does not.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent) and _TOO_LONG.fullmatch(event.value):
            raise ValueError(
                f"a number must be below 2**{MAX_BITS} in size, not one of "
                f"{len(event.value):,} digits"
            )
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


def check_values(value: Any, key: str = "") -> None:
    """Refuse values that are wrong for every key.

    These are OmegaConf's `${...}`, which could carry the environment's secrets into a record; its
    `???`, which would become the default; and whole numbers too large for a float.

    Args:
        value: value to check, with all values inside it.
        key: key of `value`, with the keys above it; empty for a whole file.

    Raises:
        ValueError: a text holds an interpolation or is `???`, or a number is too large.
    """
    if isinstance(value, dict | list):
        entries = cast("dict[object, object] | list[object]", value)
        for name, entry in entries.items() if isinstance(entries, dict) else enumerate(entries):
            check_values(entry, f"{key}.{name}" if key else f"{name}")
    elif isinstance(value, str) and "${" in value:
        raise ValueError(f"{value!r}: interpolations are refused, write the value itself")
    elif value == "???":
        raise ValueError(
            f"{key} is '???', OmegaConf's word for a value that is missing: "
            "leave it out for its default"
        )
    elif isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ValueError(
            f"{key} must be below 2**{MAX_BITS} in size, not a number of {value.bit_length()} bits"
        )


def one_line(error: Exception) -> str:
    """Return the message of OmegaConf or PyYAML, which has several lines, as one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (
        "; ".join(line for line in lines if not line.startswith("object_type"))
        or type(error).__name__
    )
