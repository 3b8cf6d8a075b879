"""The objects of infra/kuberay as Kubernetes gets them, and the definitions that they must meet.

Kustomize, kubectl's own, builds them. The definitions of KubeRay's and Kueue's kinds lie outside
the project: NAGFARM_CRDS names their folder, and `shared` beside the checkout is tried without it.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.structure import ROOT

Object = dict[str, Any]
TREE = ROOT / "infra" / "kuberay"
# Every folder that an operator applies; the others are parts of these.
OVERLAYS = ("farm", "weights", "cluster", "job", "ray-cron-job", "cron-job", "kueue/queues",
            "kueue/job")  # fmt: skip
COMPONENTS = ("weights", "spot", "on-demand", "karpenter", "gke")
# The place of a pod's template, or of a cluster's spec, in each kind.
CLUSTERS = {
    "RayCluster": ("spec",),
    "RayJob": ("spec", "rayClusterSpec"),
    "RayCronJob": ("spec", "jobTemplate", "rayClusterSpec"),
}
PODS = {
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "RayJob": ("spec", "submitterPodTemplate"),
    "RayCronJob": ("spec", "jobTemplate", "submitterPodTemplate"),
}


def build(folder: Path) -> list[Object]:
    """Return the objects of a folder, as `kubectl apply -k` sends them."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("the program kubectl is missing: it builds the objects of infra/kuberay")
    finished = subprocess.run(
        [kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return [one for one in yaml.load_all(finished.stdout, yaml.CSafeLoader) if one]


def from_root(folder: Path, name: str) -> str:
    """Return the path of a folder of infra/kuberay from another one, as kustomize wants it."""
    return os.path.relpath(TREE / name, folder.resolve())


@cache
def overlay(name: str) -> list[Object]:
    """Return the objects of a folder of infra/kuberay; do not change them."""
    return build(TREE / name)


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """Return the objects of one kind."""
    return [one for one in objects if one["kind"] == kind]


def part(one: Object, path: tuple[str, ...]) -> Any:
    """Return a part of an object."""
    value: Any = one
    for key in path:
        value = value[key]
    return value


def clusters(objects: list[Object]) -> list[Object]:
    """Return the specs of all Ray clusters that the objects hold."""
    return [part(one, CLUSTERS[one["kind"]]) for one in objects if one["kind"] in CLUSTERS]


def groups(cluster: Object) -> list[Object]:
    """Return the head group and the worker groups of a cluster's spec."""
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pods(objects: list[Object]) -> Iterator[Object]:
    """Yield the templates of all pods."""
    for cluster in clusters(objects):
        yield from (group["template"] for group in groups(cluster))
    for one in objects:
        if one["kind"] in PODS:
            yield part(one, PODS[one["kind"]])


def containers(pod: Object) -> list[Object]:
    """Return the containers of a pod's template."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def variables(container: Object) -> dict[str, Any]:
    """Return the variables of a container, with their values or their sources."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container.get("env", [])}


def crds_folder() -> Path:
    """Return the folder of the definitions; skip the test without it."""
    folder = Path(os.environ.get("NAGFARM_CRDS", ROOT.parent / "shared"))
    if not (folder / "kuberay-crds").is_dir():
        pytest.skip(f"no definitions of KubeRay's kinds in {folder}: set NAGFARM_CRDS")
    return folder


@cache
def definition(group: str, plural: str) -> Object:
    """Return the definition of a kind, such as `ray.io`, `rayjobs`."""
    (path,) = crds_folder().glob(f"*-crds/{group}_{plural}.yaml")
    return yaml.load(path.read_bytes(), yaml.CSafeLoader)


@cache
def strict_schema(group: str, plural: str, version: str) -> Object:
    """Return the JSON Schema of a kind in one version, which refuses unknown fields."""
    (found,) = [
        one for one in definition(group, plural)["spec"]["versions"] if one["name"] == version
    ]
    schema = found["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own
    return closed(schema)


def closed(schema: Any) -> Any:
    """Return a schema in which an object has no other fields than those that it names."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    properties = schema.get("properties")
    result = {key: closed(value) for key, value in schema.items() if key not in IGNORED}
    if isinstance(properties, dict):
        result["properties"] = {name: closed(value) for name, value in properties.items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = False
    return result


# `properties` is handled apart; a field may be called like any of the others.
IGNORED = {"properties", "description", "default", "x-kubernetes-validations"}
