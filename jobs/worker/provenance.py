"""What made a clip: the versions in its record, and the tags in its MP4. Loads without torch."""

import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata

from jobs.records.strict_json import dump, from_dataclass
from jobs.types import ClipSpec

VERSIONED_PACKAGES = (
    "nagfarm",
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "ray",
    "imageio-ffmpeg",
    "boto3",
)


def clip_metadata(spec: ClipSpec) -> dict[str, str]:
    """What is written into the MP4 itself, so that a file that was carried off still says what it is."""
    return {
        "title": spec.name,
        "clip_id": spec.clip_id,
        "comment": dump(
            {"model": from_dataclass(spec.model), "request": from_dataclass(spec.request)}
        ).decode(),
        "nagfarm_version": metadata.version("nagfarm"),
    }


@cache
def installed_versions() -> Mapping[str, str]:
    """Versions of what decides or carries a clip; asked for once, since it takes 6 ms."""
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in VERSIONED_PACKAGES},
    }
