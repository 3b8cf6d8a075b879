"""The network policies of infra/kuberay allow the connections of the farm and no others."""

import ipaddress
from dataclasses import dataclass, field

import pytest
import yaml

from tests.builders.kubernetes import Object, clusters, groups, of_kind, overlay, pods
from tests.structure import ROOT

RAY = {"ray.io/is-ray-node": "yes"}  # KubeRay's label


@dataclass(frozen=True)
class Pod:
    """One end of a connection: a pod, or an address outside the cluster."""

    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    address: str = "203.0.113.7"


def labels_of(component: str) -> dict[str, str]:
    """Return the labels that the pods of a part really have."""
    found: list[dict[str, str]] = []
    for name in ("job", "cron-job", "weights"):
        found += [pod["metadata"]["labels"] for pod in pods(overlay(name))]
    (cluster,) = clusters(overlay("job"))
    ray = [group["template"]["metadata"]["labels"] for group in groups(cluster)]
    for labels in found:
        if labels["app.kubernetes.io/component"] == component:
            return labels | (RAY if labels in ray else {})
    raise LookupError(component)


HERE = "nagfarm"
OUTSIDE = Pod()
DNS = Pod("kube-system", {"k8s-app": "kube-dns"}, "10.0.0.10")
OPERATOR = Pod("kuberay-system", {"app.kubernetes.io/name": "kuberay-operator"}, "10.0.0.11")
PROMETHEUS = Pod("monitoring", {"app.kubernetes.io/name": "prometheus"}, "10.0.0.12")
STRANGER = Pod("default", {"app.kubernetes.io/component": "submitter"}, "10.0.0.13")
NEIGHBOUR = Pod(HERE, {"app": "other"}, "10.0.0.14")
METADATA = Pod(address="169.254.169.254")


def part_of_the_farm(component: str) -> Pod:
    return Pod(HERE, labels_of(component), "10.0.0.20")


def matches(selector: Object, labels: dict[str, str]) -> bool:
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def is_peer(peer: Object, pod: Pod) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        return ipaddress.ip_address(pod.address) in ipaddress.ip_network(block["cidr"])
    if not pod.namespace:
        return False
    if "namespaceSelector" in peer:
        if not matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": pod.namespace}):
            return False
    elif pod.namespace != HERE:
        return False
    return matches(peer.get("podSelector", {}), pod.labels)


def allows(pod: Pod, other: Pod, port: tuple[int, str], direction: str) -> bool:
    """Return True if the policies allow one direction at one pod."""
    if pod.namespace != HERE:
        return True  # not ours to decide
    is_restricted = False
    for policy in of_kind(overlay("farm"), "NetworkPolicy"):
        spec = policy["spec"]
        if direction not in spec["policyTypes"] or not matches(spec["podSelector"], pod.labels):
            continue
        is_restricted = True
        key, peers = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
        for rule in spec.get(key, []):
            has_port = "ports" not in rule or any(
                (one["port"], one["protocol"]) == port for one in rule["ports"]
            )
            if has_port and (peers not in rule or any(is_peer(p, other) for p in rule[peers])):
                return True
    return not is_restricted


def connects(client: Pod, server: Pod, port: int, protocol: str = "TCP") -> bool:
    one = (port, protocol)
    return allows(client, server, one, "Egress") and allows(server, client, one, "Ingress")


@pytest.mark.parametrize("port", [6379, 8265, 10001, 10002, 52365, 19999, 31234])
@pytest.mark.parametrize(
    ("client", "server"), [("head", "worker"), ("worker", "head"), ("worker", "worker")]
)
def test_the_nodes_of_a_cluster_reach_each_other_at_all_ports(
    client: str, server: str, port: int
) -> None:
    assert connects(part_of_the_farm(client), part_of_the_farm(server), port)


@pytest.mark.parametrize("component", ["head", "worker", "weights"])
def test_the_store_is_reached_at_443_and_the_metadata_of_a_node_is_not(component: str) -> None:
    pod = part_of_the_farm(component)
    assert connects(pod, OUTSIDE, 443)
    assert not connects(pod, OUTSIDE, 80)
    assert not connects(pod, METADATA, 80)  # its credentials are those of the node
    assert connects(pod, Pod(address="169.254.170.23"), 80)  # EKS gives a pod its own


@pytest.mark.parametrize("component", ["head", "worker", "weights", "submitter"])
def test_every_pod_finds_names(component: str) -> None:
    for protocol in ("UDP", "TCP"):
        assert connects(part_of_the_farm(component), DNS, 53, protocol)


def test_the_dashboard_takes_jobs_from_submitters_and_kuberay_alone() -> None:
    head = part_of_the_farm("head")
    assert connects(part_of_the_farm("submitter"), head, 8265)
    assert connects(OPERATOR, head, 8265)
    beside_kuberay = Pod("kuberay-system", {"app": "other"}, "10.0.0.15")
    for other in (
        *(STRANGER, NEIGHBOUR, OUTSIDE, PROMETHEUS, beside_kuberay),
        part_of_the_farm("weights"),
    ):
        assert not connects(other, head, 8265), other


def test_a_submitter_reaches_nothing_else() -> None:
    pod = part_of_the_farm("submitter")
    assert not connects(pod, OUTSIDE, 443)
    assert not connects(pod, part_of_the_farm("worker"), 8265)
    for port in (6379, 10001, 10002):
        assert not connects(pod, part_of_the_farm("head"), port)


@pytest.mark.parametrize("component", ["head", "worker"])
def test_prometheus_reads_metrics_and_nobody_else_reaches_a_port(component: str) -> None:
    pod = part_of_the_farm(component)
    assert connects(PROMETHEUS, pod, 8080)
    for other in (STRANGER, NEIGHBOUR, OUTSIDE):
        for port in (6379, 8080, 10001, 10002):
            assert not connects(other, pod, port)


def test_the_pod_monitor_finds_heads_and_workers_at_that_port() -> None:
    text = (ROOT / "infra" / "dashboards" / "pod-monitor.yaml").read_text()
    spec = yaml.safe_load(text)["spec"]
    (endpoint,) = spec["podMetricsEndpoints"]
    for name in ("cluster", "job"):
        (cluster,) = clusters(overlay(name))
        for group in groups(cluster):
            (container,) = group["template"]["spec"]["containers"]
            assert {"name": endpoint["port"], "containerPort": 8080} in container["ports"]
    assert matches(spec["selector"], RAY)


def test_the_autoscaler_reaches_the_api_and_workers_do_not_at_its_own_port() -> None:
    assert connects(part_of_the_farm("head"), OUTSIDE, 6443)
    assert not connects(part_of_the_farm("worker"), OUTSIDE, 6443)


def test_other_pods_of_the_namespace_reach_nothing() -> None:
    assert not connects(NEIGHBOUR, OUTSIDE, 443)
    assert not connects(NEIGHBOUR, part_of_the_farm("worker"), 10002)
