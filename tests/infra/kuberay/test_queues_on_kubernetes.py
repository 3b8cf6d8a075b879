"""The queues of infra/kuberay fit its runs, as Kueue demands."""

from tests.builders.kubernetes import clusters, groups, of_kind, overlay


def test_a_run_in_a_queue_meets_the_rules_of_kueue() -> None:
    """It deletes its cluster, has no head group of that name, and is elastic if it autoscales."""
    queues = overlay("kueue/queues")
    (job,) = of_kind(overlay("kueue/job"), "RayJob")
    labels = job["metadata"]["labels"]
    locals_ = {
        (q["metadata"]["namespace"], q["metadata"]["name"]) for q in of_kind(queues, "LocalQueue")
    }
    assert (job["metadata"]["namespace"], labels["kueue.x-k8s.io/queue-name"]) in locals_
    classes = {
        one["metadata"]["name"]: one["value"] for one in of_kind(queues, "WorkloadPriorityClass")
    }
    assert classes["nagfarm-urgent"] > classes[labels["kueue.x-k8s.io/priority-class"]]
    assert job["spec"]["shutdownAfterJobFinishes"]
    assert "clusterSelector" not in job["spec"]
    assert job["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"]
    assert job["metadata"]["annotations"]["kueue.x-k8s.io/elastic-job"] == "true"


def test_the_quotas_of_the_queue_hold_one_run_with_all_its_workers() -> None:
    queues = overlay("kueue/queues")
    flavors = {
        one["metadata"]["name"]: one["spec"]["nodeLabels"]
        for one in of_kind(queues, "ResourceFlavor")
    }
    (queue,) = of_kind(queues, "ClusterQueue")
    (resources,) = queue["spec"]["resourceGroups"]
    quotas = {
        flavor["name"]: {one["name"]: quantity(one["nominalQuota"]) for one in flavor["resources"]}
        for flavor in resources["flavors"]
    }
    assert set(quotas) == set(flavors)
    (cluster,) = clusters(overlay("kueue/job"))
    wanted = {name: dict.fromkeys(resources["coveredResources"], 0.0) for name in quotas}
    for group in groups(cluster):
        spec = group["template"]["spec"]
        selector = spec.get("nodeSelector", flavors["on-demand"])
        (flavor,) = [name for name, labels in flavors.items() if labels == selector]
        requests = spec["containers"][0]["resources"]["requests"]
        for name in wanted[flavor]:
            wanted[flavor][name] += quantity(requests.get(name, 0)) * group.get("maxReplicas", 1)
    for flavor, amounts in wanted.items():
        for name, amount in amounts.items():
            assert amount <= quotas[flavor][name], (flavor, name)


def quantity(text: str | int) -> float:
    """Return a quantity of Kubernetes as a number."""
    units = {"m": 1e-3, "Gi": 2.0**30, "Mi": 2.0**20}
    for suffix, factor in units.items():
        if str(text).endswith(suffix):
            return float(str(text).removesuffix(suffix)) * factor
    return float(text)
