"""The runs of infra/kuberay: their manifests, names, images and command lines."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from jobs.cli.main import parse_arguments
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from tests.builders.kubernetes import (
    TREE,
    Object,
    build,
    clusters,
    containers,
    from_root,
    of_kind,
    overlay,
    pods,
    variables,
)


def own_run(folder: Path, manifest: str) -> list[Object]:
    """Build the run of an operator with an image and a manifest of their own."""
    (folder / "spring.yaml").write_text(manifest)
    tree: dict[str, Any] = {
        "resources": [from_root(folder, "job")],
        "images": [{"name": "nagfarm", "newName": "registry.example.com/nagfarm", "newTag": "1"}],
        "configMapGenerator": [
            {"name": "render", "behavior": "replace", "files": ["manifest.yaml=spring.yaml"]}
        ],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(tree))
    return build(folder)


def run_id(objects: list[Object]) -> str:
    (job,) = of_kind(objects, "RayJob")
    assert job["metadata"]["name"] == job["spec"]["jobId"]
    assert len(job["metadata"]["name"]) <= 47  # KubeRay's limit
    return job["spec"]["jobId"]


def test_a_run_has_the_name_and_the_id_of_its_manifests_digest(tmp_path: Path) -> None:
    own = own_run(tmp_path, "name: spring\n")
    (found,) = of_kind(own, "ConfigMap")
    assert found["data"] == {"manifest.yaml": "name: spring\n"}
    assert run_id(own) == found["metadata"]["name"]
    assert run_id(own).startswith("render-")
    assert run_id(own) != run_id(overlay("job"))
    assert {box["image"] for pod in pods(own) for box in containers(pod)} == {
        "registry.example.com/nagfarm:1"
    }


def test_the_same_manifest_is_the_same_run(tmp_path: Path) -> None:
    """The image has no part in it."""
    packaged = (TREE / "manifest" / "manifest.yaml").read_text()
    assert run_id(own_run(tmp_path, packaged)) == run_id(overlay("job"))


def test_a_run_at_fixed_times_has_the_id_of_its_manifest() -> None:
    """Each start has a cluster of its own, on which the id is new."""
    (cron,) = of_kind(overlay("ray-cron-job"), "RayCronJob")
    assert cron["spec"]["jobTemplate"]["jobId"] == run_id(overlay("job"))


def entrypoints() -> Iterator[tuple[str, list[str]]]:
    """Yield the command line of each run, and the overlay that starts it."""
    for name in ("job", "kueue/job"):
        (job,) = of_kind(overlay(name), "RayJob")
        yield name, shlex.split(job["spec"]["entrypoint"])
    (cron,) = of_kind(overlay("ray-cron-job"), "RayCronJob")
    yield "ray-cron-job", shlex.split(cron["spec"]["jobTemplate"]["entrypoint"])
    (plain,) = of_kind(overlay("cron-job"), "CronJob")
    (pod,) = pods([plain])
    command = pod["spec"]["containers"][0]["command"]
    yield "cron-job", command[command.index("--") + 1 :]


def test_each_entrypoint_is_a_command_of_nagfarm() -> None:
    found = dict(entrypoints())
    assert len(found) == 4
    for words in found.values():
        assert words[0] == "nagfarm"
        namespace = parse_arguments(words[1:])
        assert namespace.command == "render"
        assert namespace.wait  # runs of one output may overlap
        assert str(namespace.profile) == "/etc/nagfarm/profile.yaml"


def test_the_files_of_an_entrypoint_are_mounted_on_the_head() -> None:
    for name in ("job", "ray-cron-job", "kueue/job"):
        (cluster,) = clusters(overlay(name))
        mounts = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        paths = {one["mountPath"] for one in mounts}
        words = dict(entrypoints())[name]
        assert {word for word in words if word.startswith("/etc/")} <= paths
    (pod,) = pods(overlay("cron-job"))
    (container,) = pod["spec"]["containers"]
    assert "--working-dir=/manifest" in container["command"]
    assert [one["mountPath"] for one in container["volumeMounts"]] == ["/manifest/manifest.yaml"]


def test_the_first_manifest_plans_without_weights_from_elsewhere() -> None:
    manifest = open_manifest(TREE / "manifest" / "manifest.yaml", ModelCatalog())
    (spec,) = manifest.specs()
    assert spec.model.name == "shapes-wan"


def test_the_cron_job_finds_the_standing_cluster() -> None:
    (cluster,) = of_kind(overlay("cluster"), "RayCluster")
    (pod,) = pods(overlay("cron-job"))
    address = variables(pod["spec"]["containers"][0])["RAY_ADDRESS"]
    assert address == f"http://{cluster['metadata']['name']}-head-svc:8265"
    (cron,) = of_kind(overlay("cron-job"), "CronJob")
    assert cron["metadata"]["namespace"] == cluster["metadata"]["namespace"]
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"


def test_the_deadline_of_the_cron_job_is_in_the_time_zone_of_its_schedule() -> None:
    """A second try after the deadline would run until the next one, so there is none."""
    (cron,) = of_kind(overlay("cron-job"), "CronJob")
    namespace = parse_arguments(dict(entrypoints())["cron-job"][1:])
    assert namespace.deadline is not None
    assert namespace.time_zone.name == cron["spec"]["timeZone"]
    assert cron["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0
