"""The preStop hook of a pod with workers, on a node of a real cluster."""

import threading
from typing import Any

import psutil
import pytest

from infra.kuberay.farm import drain as hook
from infra.local.ray_cluster import LocalRay


@pytest.mark.slow
@pytest.mark.cluster
def test_a_node_with_workers_leaves_the_cluster_and_waits_for_them(
    ray_driver: LocalRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from ray._private.state import state

    head = [process.pid for process in ray_driver.processes()]
    assert hook.leaving_node(hook.processes(head)) is None
    node = ray_driver.add_node(1)
    try:
        selector = {"ray.io/node-id": node.node_id}

        remote: Any = ray.remote(num_cpus=1, label_selector=selector)

        @remote
        class SomeActor:
            def pid(self) -> int:
                return psutil.Process().pid

        actor = SomeActor.remote()
        worker: int = ray.get(actor.pid.remote())
        numbers = [node.raylet.pid, *(child.pid for child in node.raylet.children())]
        assert hook.workers(hook.processes(numbers)) == {worker}
        assert hook.leaving_node(hook.processes(numbers)) == node.node_id
        for name in ("PATH", "RAY_AUTH_TOKEN_PATH"):
            monkeypatch.setenv(name, ray_driver.environment()[name])
        monkeypatch.setenv("RAY_ADDRESS", ray_driver.address)
        is_told = threading.Event()
        tell = hook.announce

        def announced(*arguments: Any) -> None:
            tell(*arguments)
            is_told.set()

        monkeypatch.setattr(hook, "announce", announced)
        ended: list[bool] = []
        thread = threading.Thread(target=lambda: ended.append(hook.drain(120.0, numbers)))
        thread.start()
        assert is_told.wait(120)
        assert node.node_id in state.get_draining_nodes()
        assert thread.is_alive()  # the worker still has a clip
        ray.kill(actor)
        thread.join(60)
        assert ended == [True]
    finally:
        node.stop()
