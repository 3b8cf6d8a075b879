"""The objects of infra/kuberay fit each other, nagfarm's settings and its command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.settings.run_config import RunConfig, load_config
from jobs.worker.spool import Spool
from tests.builders.kubernetes import (
    OVERLAYS,
    TREE,
    Object,
    clusters,
    containers,
    groups,
    of_kind,
    overlay,
    pods,
    variables,
)

WITH_PODS = tuple(name for name in OVERLAYS if name not in {"farm", "kueue/queues"})
WITH_CLUSTERS = ("cluster", "job", "ray-cron-job", "kueue/job")
# an operator makes them
SECRETS = {"nagfarm-ray-token", "nagfarm-s3", "nagfarm-hub", "nagfarm-webhook"}
SPOT_NOTICE_S = 120  # AWS announces the end of a spot node so long before
SECONDS_OF_AN_END = 20  # after its clips, a run writes its last documents and leaves the cluster


def profile() -> RunConfig:
    return load_config(TREE / "farm" / "profile.yaml")


def secrets(objects: list[Object]) -> Iterator[str]:
    for cluster in clusters(objects):
        yield cluster["authOptions"]["secretName"]
    for pod in pods(objects):
        for container in containers(pod):
            for source in container.get("envFrom", []):
                yield source["secretRef"]["name"]
            for value in variables(container).values():
                if isinstance(value, dict) and "secretKeyRef" in value:
                    yield value["secretKeyRef"]["name"]


@pytest.mark.parametrize("name", WITH_PODS)
def test_each_reference_leads_to_an_object(name: str) -> None:
    objects = overlay(name)
    own = {one["metadata"]["name"] for one in of_kind(objects, "ConfigMap")}
    both = [*of_kind(objects, "ConfigMap"), *of_kind(overlay("farm"), "ConfigMap")]
    maps = {one["metadata"]["name"]: one["data"] for one in both}
    accounts = {one["metadata"]["name"] for one in of_kind(overlay("farm"), "ServiceAccount")}
    claims = {
        one["metadata"]["name"] for one in of_kind(overlay("weights"), "PersistentVolumeClaim")
    }
    assert set(secrets(objects)) <= SECRETS
    used = set[str]()
    for pod in pods(objects):
        assert pod["spec"]["serviceAccountName"] in accounts
        volumes = {one["name"]: one for one in pod["spec"].get("volumes", [])}
        mounted = set[str]()
        for mount in (one for box in containers(pod) for one in box.get("volumeMounts", [])):
            volume = volumes[mount["name"]]
            mounted.add(mount["name"])
            if "configMap" in volume:
                used.add(volume["configMap"]["name"])
                assert mount["subPath"] in maps[volume["configMap"]["name"]]
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
        assert mounted == set(volumes)
    assert own <= used


@pytest.mark.parametrize("name", WITH_PODS)
def test_all_pods_have_one_image_and_keep_the_restricted_standard(name: str) -> None:
    for pod in pods(overlay(name)):
        user = pod["spec"]["securityContext"]
        assert (user["runAsNonRoot"], user["runAsUser"], user["runAsGroup"]) == (True, 1000, 0)
        assert user["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            assert container["image"] == "nagfarm"
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            resources = container["resources"]
            assert resources["limits"]["memory"] == resources["requests"]["memory"]
            assert "cpu" in resources["requests"]


@pytest.mark.parametrize("name", WITH_CLUSTERS)
def test_a_pod_outlives_the_drain_of_its_run(name: str) -> None:
    """Clips in flight < `ray job stop` < preStop < SIGKILL, within the notice of a spot node."""
    drain_s = profile().workers.drain_s
    for cluster in clusters(overlay(name)):
        hooks_s = list[float]()
        for group in groups(cluster):
            spec = group["template"]["spec"]
            (container,) = spec["containers"]
            python, script, hook_s = container["lifecycle"]["preStop"]["exec"]["command"]
            assert (python, script) == ("python", "/etc/nagfarm/drain.py")
            assert drain_s + SECONDS_OF_AN_END <= float(hook_s)
            assert float(hook_s) < spec["terminationGracePeriodSeconds"] <= SPOT_NOTICE_S
            hooks_s.append(float(hook_s))
        head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
        stop_s = float(variables(head)["RAY_JOB_STOP_WAIT_TIME_S"])
        assert drain_s + SECONDS_OF_AN_END <= stop_s <= min(hooks_s)


@pytest.mark.parametrize("name", WITH_CLUSTERS)
def test_a_head_renders_nothing_and_workers_come_from_zero(name: str) -> None:
    for cluster in clusters(overlay(name)):
        head, *workers = groups(cluster)
        assert head["rayStartParams"]["num-cpus"] == "0"
        for group in groups(cluster):  # a node may show its GPUs to all pods
            limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
            assert ("nvidia.com/gpu" in limits) == ("num-gpus" not in group["rayStartParams"])
        assert head["rayStartParams"]["num-gpus"] == "0"
        assert cluster["enableInTreeAutoscaling"]
        assert (
            {group["minReplicas"] for group in workers}
            == {0}
            == {group["replicas"] for group in workers}
        )
        by_priority = sorted(workers, key=lambda group: -group.get("priority", 0))
        assert by_priority[0]["groupName"] == "spot"


def test_a_run_asks_for_as_many_workers_as_the_groups_may_have() -> None:
    (cluster,) = clusters(overlay("cluster"))
    num_gpus = 0
    for group in cluster["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        num_gpus += int(limits.get("nvidia.com/gpu", 0)) * group["maxReplicas"]
    assert profile().workers.count == num_gpus


def test_the_spool_lies_below_the_volume_for_it() -> None:
    folder = profile().workers.spool_folder
    assert folder is not None
    for name in WITH_CLUSTERS:
        for cluster in clusters(overlay(name)):
            for group in cluster["workerGroupSpecs"]:
                spec = group["template"]["spec"]
                mounts = {m["name"]: m["mountPath"] for m in spec["containers"][0]["volumeMounts"]}
                assert Path(folder).parent == Path(mounts["spool"])
                assert {"name": "spool", "emptyDir": {"sizeLimit": "20Gi"}} in spec["volumes"]


def test_a_spool_may_lie_in_an_empty_volume_that_all_may_write_to(tmp_path: Path) -> None:
    """Kubernetes gives such a volume the mode 2777, and the worker its own folder in it."""
    tmp_path.chmod(0o2777)
    spool = Spool(tmp_path / "nagfarm", "s3://renders/first")
    spool.check_room(1)
    assert spool.folder.parent.stat().st_mode & 0o777 == 0o700


def test_weights_are_mounted_read_only_where_the_hub_looks() -> None:
    for name in WITH_CLUSTERS:
        for cluster in clusters(overlay(name)):
            for group in groups(cluster):
                (container,) = group["template"]["spec"]["containers"]
                (mount,) = [m for m in container["volumeMounts"] if m["name"] == "weights"]
                assert mount["readOnly"]
                found = variables(container)
                assert (found["HF_HUB_CACHE"], found["HF_HUB_OFFLINE"]) == (mount["mountPath"], "1")
    (pod,) = pods(overlay("weights"))
    (container,) = pod["spec"]["containers"]
    assert (
        variables(container)["HF_HUB_CACHE"]
        == container["volumeMounts"][0]["mountPath"]
        == "/weights"
    )


def test_a_secret_is_named_and_never_made_here() -> None:
    for name in OVERLAYS:
        assert of_kind(overlay(name), "Secret") == []
        assert "SECRET_ACCESS_KEY" not in str(overlay(name))


def test_the_webhook_is_known_where_drivers_run_and_not_to_workers() -> None:
    for name in WITH_CLUSTERS:
        for cluster in clusters(overlay(name)):
            workers = [group["template"] for group in cluster["workerGroupSpecs"]]
            assert "nagfarm-webhook" in str(cluster["headGroupSpec"]["template"])
            assert "nagfarm-webhook" not in str(workers)


def test_the_token_of_ray_is_on_everywhere() -> None:
    for name in WITH_CLUSTERS:
        for cluster in clusters(overlay(name)):
            assert cluster["authOptions"] == {"mode": "token", "secretName": "nagfarm-ray-token"}
    (pod,) = pods(overlay("cron-job"))
    found = variables(pod["spec"]["containers"][0])
    assert found["RAY_AUTH_MODE"] == "token"
    assert found["RAY_AUTH_TOKEN"] == {
        "secretKeyRef": {"name": "nagfarm-ray-token", "key": "auth_token"}
    }


def test_the_disruption_budget_covers_the_heads_and_no_worker() -> None:
    (budget,) = of_kind(overlay("farm"), "PodDisruptionBudget")
    selected = budget["spec"]["selector"]["matchLabels"].items()
    for cluster in clusters(overlay("job")):
        head, *workers = [group["template"]["metadata"]["labels"] for group in groups(cluster)]
        assert selected <= head.items()
        assert not any(selected <= labels.items() for labels in workers)
