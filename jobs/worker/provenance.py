"""The origin of a clip: versions in its record and tags in its MP4. Loads without torch."""

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
    """Return the tags of the MP4, which identify the clip even when its file is moved elsewhere."""
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
    """Return the versions of Python and the libraries; cached, because the look-up takes 6 ms."""
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in VERSIONED_PACKAGES},
    }
