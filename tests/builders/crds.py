"""Strict checks of Kubernetes objects against custom resource definitions outside the project.

NAGFARM_CRDS names the folder that holds them; without it, it is `shared` beside the checkout. A
cluster drops a field that it does not know, so that a typing error would have no effect; here it is
refused.
"""

import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.structure import ROOT

FOLDER = Path(os.environ.get("NAGFARM_CRDS", ROOT.parent / "shared"))


def check_object(found: dict[str, Any], crds: str) -> None:
    """Check an object against the definition of its kind and version.

    Args:
        crds: folder of definitions in `FOLDER`, such as "kuberay-crds".

    Raises:
        ValidationError: a field is unknown, missing or has a wrong value.
    """
    group, _, version = found["apiVersion"].partition("/")
    for path in sorted((FOLDER / crds).glob("*.yaml")):
        spec = yaml.safe_load(path.read_text())["spec"]
        if (spec["group"], spec["names"]["kind"]) == (group, found["kind"]):
            (schema,) = (
                one["schema"]["openAPIV3Schema"]
                for one in spec["versions"]
                if one["name"] == version
            )
            jsonschema.Draft7Validator(strict(schema)).validate(found)
            return
    pytest.skip(f"no definition of {found['kind']} in {FOLDER / crds}; NAGFARM_CRDS names another")


def strict(schema: Any) -> Any:
    """Return a schema in which an object has no fields but those that it names."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: strict(value) for name, value in schema.items()}
    is_open = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if (
        isinstance(schema.get("properties"), dict)
        and schema.get("type") == "object"
        and not is_open
    ):
        found["additionalProperties"] = False
    return found
