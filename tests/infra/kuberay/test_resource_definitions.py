"""The objects of infra/kuberay meet the definitions of their kinds, without an unknown field."""

import re
from copy import deepcopy
from typing import Any

import jsonschema
import pytest
import yaml

from tests.builders.kubernetes import (
    CLUSTERS,
    COMPONENTS,
    OVERLAYS,
    TREE,
    Object,
    build,
    containers,
    definition,
    from_root,
    groups,
    of_kind,
    overlay,
    part,
    pods,
    strict_schema,
)
from tests.structure import ROOT

KUBERNETES = "1.33"  # the oldest that docs/how-to/kubernetes.md names
DEFINED = ("ray.io", "kueue.x-k8s.io")
PLURALS = {"ClusterQueue": "clusterqueues", "WorkloadPriorityClass": "workloadpriorityclasses"}


def plural(kind: str) -> str:
    return PLURALS.get(kind, f"{kind.lower()}s")


def check(one: Object) -> None:
    """Raise jsonschema's ValidationError for an object that Kubernetes would refuse."""
    group, _, version = one["apiVersion"].rpartition("/")
    if group in DEFINED:
        jsonschema.Draft202012Validator(
            strict_schema(group, plural(one["kind"]), version)
        ).validate(one)
    else:
        kubernetes_validate = pytest.importorskip("kubernetes_validate")
        kubernetes_validate.validate(one, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", OVERLAYS)
def test_each_object_meets_the_definition_of_its_kind(name: str) -> None:
    objects = overlay(name)
    assert objects
    for one in objects:
        check(one)


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_object_has_a_namespace_if_its_kind_has_one(name: str) -> None:
    for one in overlay(name):
        group = one["apiVersion"].rpartition("/")[0]
        is_namespaced = one["kind"] != "Namespace"
        if group in DEFINED:
            is_namespaced = definition(group, plural(one["kind"]))["spec"]["scope"] == "Namespaced"
        assert ("namespace" in one["metadata"]) == is_namespaced, one["metadata"]


def test_an_unknown_field_of_kuberays_kinds_is_found() -> None:
    (job,) = of_kind(overlay("job"), "RayJob")
    for path in (("spec",), CLUSTERS["RayJob"], (*CLUSTERS["RayJob"], "headGroupSpec")):
        broken = deepcopy(job)
        part(broken, path)["noSuchField"] = 1
        with pytest.raises(jsonschema.ValidationError, match="noSuchField"):
            check(broken)


def test_an_unknown_field_of_a_core_kind_is_found() -> None:
    pytest.importorskip("kubernetes_validate")
    (job,) = of_kind(overlay("cron-job"), "CronJob")
    broken = deepcopy(job)
    broken["spec"]["noSuchField"] = 1
    with pytest.raises(jsonschema.ValidationError, match="noSuchField"):
        check(broken)


SETS = (("weights", "spot", "karpenter"), ("weights", "on-demand", "gke"))
CAPACITY = {"karpenter": "karpenter.sh/capacity-type", "gke": "cloud.google.com/gke-spot"}


@pytest.fixture(scope="module", params=SETS, ids=" ".join)
def chosen(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tuple[str, ...], list[Object]]:
    """The objects of an operator who uses some components on all kinds of clusters."""
    folder = tmp_path_factory.mktemp("kustomize")
    tree: dict[str, Any] = {
        "resources": [from_root(folder, name) for name in ("cluster", "ray-cron-job")],
        "components": [from_root(folder, f"components/{name}") for name in request.param],
        "images": [{"name": "nagfarm", "newTag": "own"}],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(tree))
    return request.param, build(folder)


def test_components_change_all_kinds_alike(
    chosen: tuple[tuple[str, ...], list[Object]],
) -> None:
    (_, only, cloud), objects = chosen
    specs = [part(one, CLUSTERS[one["kind"]]) for one in objects if one["kind"] in CLUSTERS]
    assert len(specs) == 2
    for spec in specs:
        head, *workers = groups(spec)
        by_name = {group["groupName"]: group for group in workers}
        for name in ("spot", "on-demand"):
            assert (by_name[name]["maxReplicas"] > 0) == (name == only)
        for group in (head, *workers):
            volumes = group["template"]["spec"]["volumes"]
            assert [one["name"] for one in volumes if "persistentVolumeClaim" in one] == ["weights"]
        places = {
            name: group["template"]["spec"].get("nodeSelector")
            for name, group in (("head", head), *by_name.items())
        }
        assert set(places["spot"]) == {CAPACITY[cloud]}
        assert places["head"] == places["on-demand"] != places["spot"]
        assert places["cpu"] is None


def test_an_image_reaches_every_place(chosen: tuple[tuple[str, ...], list[Object]]) -> None:
    images = {box["image"] for pod in pods(chosen[1]) for box in containers(pod)}
    assert images == {"nagfarm:own"}


def test_objects_with_components_meet_the_definitions(
    chosen: tuple[tuple[str, ...], list[Object]],
) -> None:
    for one in chosen[1]:
        check(one)


def test_every_component_is_tried() -> None:
    assert {name for names in SETS for name in names} == set(COMPONENTS)


def test_each_folder_is_named_as_an_overlay_a_component_or_a_part_of_one() -> None:
    found = {path.parent.relative_to(TREE).as_posix() for path in TREE.rglob("kustomization.yaml")}
    parts = {"base", "manifest", "job/copy", "ray-cron-job/copy"}
    assert found == {*OVERLAYS, *parts, *(f"components/{name}" for name in COMPONENTS)}


def test_the_version_of_ray_is_the_pinned_one() -> None:
    pinned = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    for name in ("cluster", "job", "ray-cron-job"):
        for one in overlay(name):
            if one["kind"] in CLUSTERS:
                assert part(one, CLUSTERS[one["kind"]])["rayVersion"] == pinned[1]


@pytest.mark.parametrize("name", ["cluster", "job", "ray-cron-job", "kueue/job"])
def test_clusters_meet_the_rules_that_kuberay_checks_beside_its_definitions(name: str) -> None:
    """A RayJob that breaks one fails; the API server takes it."""
    for one in overlay(name):
        if one["kind"] not in CLUSTERS:
            continue
        cluster = part(one, CLUSTERS[one["kind"]])
        assert ("upgradeStrategy" in cluster) == (one["kind"] == "RayCluster")
        assert cluster["autoscalerOptions"]["version"] == "v2"  # knows priorities of groups
        for group in groups(cluster):
            assert "restartPolicy" not in group["template"]["spec"]  # the autoscaler restarts
            assert "resources" not in group  # they stand in rayStartParams
            assert "labels" not in group["rayStartParams"]
        names = [group["groupName"] for group in cluster["workerGroupSpecs"]]
        assert "head" not in names
        assert len(set(names)) == len(names)
        if one["kind"] != "RayCluster":
            job = part(one, CLUSTERS[one["kind"]][:-1])
            assert job["shutdownAfterJobFinishes"]  # else no time to live, and no suspension
            assert job.get("submissionMode", "K8sJobMode") == "K8sJobMode"  # has a submitter
            assert "clusterSelector" not in job
