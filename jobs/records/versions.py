"""The version of the records' schema, and how records of an earlier version are read.

A record that was committed is never written again, so it is brought up to date each time that it is read. It keeps its
`clip_id`, which a later version would compute otherwise.
"""

from typing import Any

from jobs.errors import RecordError
from jobs.records.strict_json import load

SCHEMA_VERSION = 4


def load_versioned(content: bytes) -> dict[str, Any]:
    """A record's JSON as this version would have written it.

    Raises:
        RecordError: no JSON object, damaged, or of a version that is not known.
    """
    document = load(content)
    version = document.get("schema_version")
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise RecordError(
            f"schema_version must be 1 to {SCHEMA_VERSION}, not {version!r}; "
            "a newer nagfarm may have written this record"
        )
    if version < 2:
        _update_from_1(document)
    if version < 3:
        _update_from_2(document)
    if version < 4:
        _update_from_3(document)
    document["schema_version"] = SCHEMA_VERSION
    return document


def _update_from_1(document: dict[str, Any]) -> None:
    """Version 1 knew no LoRAs, NAG alone with the L1 norm, and classifier-free guidance where its scale was above 1."""
    if "request" not in document:  # a failure or a quarantine, whose fields are the same
        return
    try:
        request = document["request"]
        request["method"] = "cfg+nag" if request["sampling"]["guidance_scale"] > 1 else "nag"
        request["nag"]["nag_norm"] = "l1"
        request["vsf"] = {"vsf_scale": 1.0, "vsf_bias": 0.2}
        request["nasa"] = {"nasa_scale": 0.3}
        document["model"] |= {"loras": [], "fuse_loras": False}
    except (KeyError, TypeError) as error:
        raise RecordError(f"is not as version 1 wrote it: {error}") from error


def _update_from_2(document: dict[str, Any]) -> None:
    """Version 2 had no safer setting, and did not look at the worker's memory."""
    if "request" in document:
        document |= {"attention": "fused", "host_memory_bytes": None}


def _update_from_3(document: dict[str, Any]) -> None:
    """Version 3 rendered each clip on one device, and no model was accelerated."""
    if "request" in document:
        document["parallel"] = {"ulysses": 1, "ring": 1, "across_hosts": False}
        if isinstance(
            document.get("model"), dict
        ):  # else it is refused as no model, whatever the version
            document["model"] |= {"first_block_cache": None, "compile": False, "vae_tiling": False}
