"""Read configuration: small YAML of plain values, from files and from `key=value`.

Decides what every configuration refuses. `model_config` has the schema of models,
`jobs.config` that of runs. Loads without torch.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

MAX_CONFIG_BYTES = 1_000_000
MAX_BITS = 64  # for a whole number
# The errors of reading, merging and checking.
INVALID = (OmegaConfBaseException, YAMLError, ValueError, TypeError)


def read_file(path: Path) -> DictConfig:
    """Read a YAML of keys and plain values; an empty file has no keys.

    Raises:
        OSError: the file cannot be read.
        INVALID: the file is too large, is not YAML, or holds a refused value.
    """
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"larger than {MAX_CONFIG_BYTES:,} bytes")
    text = path.read_text(encoding="utf-8")
    return _checked(lambda: OmegaConf.create(text))


def read_overrides(overrides: Sequence[str]) -> DictConfig:
    """Read `key=value` texts, each with a key such as `workers.count` and a value as in YAML.

    Raises:
        INVALID: a text is not `key=value`, is not YAML, or holds a refused value.
    """
    for override in overrides:
        if "=" not in override:
            raise ValueError(f"{override!r} is not key=value, such as workers.count=2")
    return _checked(lambda: OmegaConf.from_dotlist(list(overrides)))


def _checked(read: Callable[[], DictConfig | ListConfig]) -> DictConfig:
    try:
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
