"""The dispatcher on a real Ray cluster, with a fake model that fails on demand."""

import os
import signal
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest
import ray

from infra.local.ray_cluster import LocalRay
from jobs.cluster.connection import cluster_nodes
from jobs.cluster.dispatcher import Dispatcher
from jobs.cluster.joined_cluster import ClusterView, JoinedCluster
from jobs.cluster.launcher import ActorLauncher
from jobs.cluster.worker_pool import PoolPlan
from jobs.costs.device_ledger import DeviceEvent, DevicesFreed, DevicesHeld, DevicesReady
from jobs.errors import ModelFailedError, NoWorkersError, StoppedError, StoreRefusedError
from jobs.metrics.run_metrics import WorkerCounts
from jobs.plan.demand import Demand
from jobs.plan.group_capacity import RankResources
from jobs.records.commit import committed_ids, read_record
from jobs.records.schema import WorkerIdentity
from jobs.schedule.events import Attempt
from jobs.schedule.retry import Decision, Quarantine, Retry
from jobs.settings.run_config import RetryPolicy, RunConfig, StallPolicy, StoreConfig, WorkerConfig
from jobs.store.store import open_store
from jobs.types import ClipDone, ClipFailed, ClipSpec, WorkerHeartbeat
from jobs.worker.setup import WorkerSetup
from pipelines.load_progress import LoadPosition
from pipelines.parallel_config import ONE_DEVICE
from tests.builders.specs import setup_for, spec
from tests.fakes.model import FakeLoader, LateLoader, fail_to_load

pytestmark = pytest.mark.cluster

CPU = RankResources(num_cpus=1)
CONFIG = RunConfig(workers=WorkerConfig(count=2, num_cpus=1), retry=RetryPolicy())


@dataclass
class Notes:
    """An observer that keeps all events."""

    gate: Path | None = None  # appears when two workers are ready
    loading: list[LoadPosition] = field(default_factory=list[LoadPosition])
    waiting: list[str | None] = field(default_factory=list[str | None])
    ready: list[str] = field(default_factory=list[str])
    lost: list[str] = field(default_factory=list[str])
    replaced: list[str] = field(default_factory=list[str])
    released: list[str] = field(default_factory=list[str])
    counts: list[WorkerCounts] = field(default_factory=list[WorkerCounts])
    devices: list[DeviceEvent] = field(default_factory=list[DeviceEvent])
    heartbeats: list[WorkerHeartbeat] = field(default_factory=list[WorkerHeartbeat])
    started: list[tuple[str, Attempt]] = field(default_factory=list[tuple[str, Attempt]])
    returned: list[str] = field(default_factory=list[str])
    done: list[ClipDone] = field(default_factory=list[ClipDone])
    failed: list[tuple[ClipFailed, Decision]] = field(
        default_factory=list[tuple[ClipFailed, Decision]]
    )

    def workers_waiting(self, devices: str | None) -> None:
        self.waiting.append(devices)

    def workers_loading(self, positions: Sequence[LoadPosition]) -> None:
        self.loading += positions

    def workers_counted(self, counts: Sequence[WorkerCounts]) -> None:
        self.counts += counts

    def devices_changed(self, event: DeviceEvent) -> None:
        self.devices.append(event)

    def worker_ready(self, label: str, identity: WorkerIdentity, warning: str = "") -> None:
        self.ready.append(label)
        if self.gate is not None and len(self.ready) == 2:
            self.gate.touch()

    def worker_stopped(self, label: str, message: str, *, is_ready: bool, is_lost: bool) -> None:
        (self.lost if is_lost else self.replaced).append(f"{label}: {message}")

    def worker_released(self, label: str, message: str, *, is_ready: bool) -> None:
        self.released += [label] if is_ready else []

    def model_failed(self, model: str, error: ModelFailedError) -> None:
        pass

    def worker_heartbeat(self, label: str, heartbeat: WorkerHeartbeat) -> None:
        self.heartbeats.append(heartbeat)

    def clip_started(self, label: str, attempt: Attempt) -> None:
        self.started.append((label, attempt))

    def clip_returned(self, clip_id: str) -> None:
        self.returned.append(clip_id)

    def tick(self) -> None:
        pass

    def clip_done(self, done: ClipDone) -> None:
        self.done.append(done)

    def clip_failed(self, failed: ClipFailed, decision: Decision) -> None:
        self.failed.append((failed, decision))


def dispatch(
    setup: WorkerSetup, specs: list[ClipSpec], config: RunConfig = CONFIG, gate: Path | None = None
) -> Notes:
    notes = Notes(gate)
    dispatcher(setup, config, 2, notes).run(iter(specs))
    return notes


@dataclass
class OneKind:
    """A dispatcher with the clips of one kind of worker."""

    dispatcher: Dispatcher
    setup: WorkerSetup
    demand: Demand

    def request_stop(self, reason: str) -> None:
        self.dispatcher.request_stop(reason)

    def run(self, specs: Iterator[ClipSpec]) -> None:
        """Render the clips, and raise the error with which the kind failed."""
        for failed in self.dispatcher.run([PoolPlan(self.setup, lambda _: self.demand, specs)]):
            raise failed.error


def dispatcher(setup: WorkerSetup, config: RunConfig, num_workers: int, notes: "Notes") -> OneKind:
    """Return a dispatcher for a number of workers, on a cluster of which nothing is known."""
    demand = Demand(setup.parallel, RankResources(config.workers.num_cpus), 1_000, num_workers)
    return OneKind(Dispatcher(config, notes, ClusterView), setup, demand)


def committed(folder: Path) -> AbstractSet[str]:
    return committed_ids(open_store(folder.as_uri(), StoreConfig()))


def test_every_clip_is_committed_once_by_several_workers(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    specs = [spec(f"wait {gate}", seed) for seed in range(12)]
    notes = dispatch(setup_for(tmp_path), specs, gate=gate)
    assert (
        committed(tmp_path)
        == {one.clip_id for one in specs}
        == {done.clip_id for done in notes.done}
    )
    assert len(notes.done) == 12
    assert len(set(notes.ready)) == 2
    assert not notes.failed
    assert not notes.lost


def test_a_worker_that_is_ready_late_takes_over_a_clip_that_has_not_begun(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    """The first worker gets all three clips; they end once the other one has a clip, too."""
    gate = tmp_path / "gate"

    class Opening(Notes):
        def clip_started(self, label: str, attempt: Attempt) -> None:
            super().clip_started(label, attempt)
            if len({label for label, _ in self.started}) == 2:
                gate.touch()

    notes, specs = Opening(), [spec(f"wait {gate}", seed) for seed in range(3)]
    stall = StallPolicy(first_s=60, min_s=60)
    dispatcher(setup_for(tmp_path), replace(CONFIG, stall=stall), 2, notes).run(iter(specs))
    assert len(notes.done) == 3
    assert not notes.failed
    assert notes.returned
    assert [attempt.number for _, attempt in notes.started] == [1] * (3 + len(notes.returned))


def test_a_device_that_is_free_at_the_end_of_one_kind_renders_the_next_meanwhile(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    """The last clip of the first kind ends only once a clip of the next kind has begun."""
    gate, setup = tmp_path / "gate", setup_for(tmp_path)
    first, later = [spec(f"wait {gate}"), spec("sunrise")], [spec("sunset"), spec("dawn")]

    class Opening(Notes):
        def clip_started(self, label: str, attempt: Attempt) -> None:
            super().clip_started(label, attempt)
            if attempt.spec in later:
                gate.touch()

    notes = Opening()
    demand = Demand(ONE_DEVICE, CPU, 2, 2)
    plans = [PoolPlan(setup, lambda _: demand, iter(specs)) for specs in (first, later)]
    assert not Dispatcher(CONFIG, notes, JoinedCluster(True, "", {}).look).run(plans)
    assert committed(tmp_path) == {one.clip_id for one in (*first, *later)}
    assert not notes.failed
    assert not notes.lost
    assert sorted(notes.released) == sorted(notes.ready), "each ready worker ends once"


def test_a_failing_clip_does_not_stop_the_others(ray_driver: LocalRay, tmp_path: Path) -> None:
    specs = [spec("sunrise", seed) for seed in range(4)]
    notes = dispatch(setup_for(tmp_path), [*specs[:2], spec("error"), *specs[2:]])
    assert committed(tmp_path) == {one.clip_id for one in specs}
    ((failed, decision),) = notes.failed
    assert "the model did not like it" in failed.traceback
    assert isinstance(decision, Quarantine)


def test_a_killed_worker_is_replaced_and_its_clip_is_rendered_by_another(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    specs = [spec("sunrise", seed) for seed in range(4)]
    fatal = spec(f"die once {tmp_path / 'died'}")
    notes = dispatch(setup_for(tmp_path), [fatal, *specs])
    assert committed(tmp_path) == {fatal.clip_id, *(one.clip_id for one in specs)}
    assert len(notes.lost) == 1
    assert {decision for _, decision in notes.failed} == {Retry(2)}
    record = read_record(open_store(tmp_path.as_uri(), StoreConfig()), fatal.clip_id)
    assert record.attempt == 2


def test_a_clip_that_kills_every_worker_is_quarantined_and_no_other_is_charged(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    specs = [spec("sunrise", seed) for seed in range(6)]
    poison = spec("die")
    notes = dispatch(setup_for(tmp_path), [specs[0], poison, *specs[1:]])
    assert committed(tmp_path) == {one.clip_id for one in specs}
    # If a last heartbeat was old, the clip counted as a bystander of one loss, but not of a second.
    assert len(notes.lost) in (3, 4)
    quarantined = [
        failed.clip_id for failed, decision in notes.failed if isinstance(decision, Quarantine)
    ]
    assert quarantined == [poison.clip_id]


def test_clips_are_taken_from_the_plan_only_when_a_worker_has_room(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    notes, ahead = Notes(), []

    def specs() -> Iterator[ClipSpec]:
        for seed in range(30):
            ahead.append(seed - len(notes.done))
            yield spec("sunrise", seed)

    dispatcher(setup_for(tmp_path), CONFIG, 2, notes).run(specs())
    room = 2 * (CONFIG.workers.spool_clips + 1)
    assert max(ahead) <= room


def test_the_first_clip_waits_for_one_worker_and_the_others_show_how_far_they_are(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    """The clip ends once the other worker has reported its loading, which never ends."""
    gate = tmp_path / "gate"

    class Opening(Notes):
        def workers_loading(self, positions: Sequence[LoadPosition]) -> None:
            super().workers_loading(positions)
            if LoadPosition(("verify",), 0.5) in positions and self.ready:
                gate.touch()

    notes, loader = Opening(), LateLoader(first=tmp_path / "first")
    setup = replace(setup_for(tmp_path), loader=loader)
    one = spec(f"wait {gate}")
    dispatcher(setup, IMPATIENT, 2, notes).run(iter([one]))
    assert [done.clip_id for done in notes.done] == [one.clip_id]
    assert len(notes.ready) == 1
    assert not notes.lost


def test_weights_that_do_not_load_stop_the_run(ray_driver: LocalRay, tmp_path: Path) -> None:
    with pytest.raises(
        NoWorkersError,
        match="no worker could be started: could not load fake: the weights are broken",
    ):
        dispatch(replace(setup_for(tmp_path), loader=FakeLoader(fail_to_load)), [spec("sunrise")])


def test_workers_without_a_place_are_not_charged_and_those_that_have_one_go_on(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    """Four workers are wanted and two have a place; the clips end once the run says so."""
    gate = tmp_path / "gate"

    class Opening(Notes):
        def workers_waiting(self, devices: str | None) -> None:
            super().workers_waiting(devices)
            if devices is not None and len(self.ready) == 2:
                gate.touch()

    notes, setup, demand = Opening(), setup_for(tmp_path), Demand(ONE_DEVICE, CPU, 12, 4)
    cluster = JoinedCluster(True, "", {})
    OneKind(Dispatcher(CONFIG, notes, cluster.look), setup, demand).run(
        spec(f"wait {gate}", seed) for seed in range(12)
    )
    assert len(notes.done) == 12
    assert not notes.lost
    assert "2 devices that the cluster does not have: it has room for 2 workers" in notes.waiting


def test_a_store_that_takes_nothing_stops_the_run_and_quarantines_no_clip(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    (tmp_path / "clips").write_text("in the way")
    notes = Notes()
    with pytest.raises(StoreRefusedError):
        dispatcher(setup_for(tmp_path), CONFIG, 2, notes).run(iter([spec("sunrise")]))
    assert not any(isinstance(decision, Quarantine) for _, decision in notes.failed)


IMPATIENT = replace(
    CONFIG,
    stall=StallPolicy(
        heartbeat_interval_s=0.5, heartbeat_timeout_s=6, first_s=6, factor=3, min_s=6
    ),
)


def failures_of(notes: Notes) -> list[tuple[str, str]]:
    return [(failed.clip_id, failed.failure_class) for failed, _ in notes.failed]


def test_a_worker_sends_heartbeats_while_it_computes(ray_driver: LocalRay, tmp_path: Path) -> None:
    gate, one = tmp_path / "gate", spec(f"wait {tmp_path / 'gate'}")

    class Opening(Notes):
        def worker_heartbeat(self, label: str, heartbeat: WorkerHeartbeat) -> None:
            super().worker_heartbeat(label, heartbeat)
            if [clip for clip in heartbeat.clips if clip.stage == "denoise"]:
                gate.touch()

    notes = Opening()
    dispatcher(setup_for(tmp_path), IMPATIENT, 1, notes).run(iter([one]))
    assert [done.clip_id for done in notes.done] == [one.clip_id]
    assert all(heartbeat.memory_bytes > 0 for heartbeat in notes.heartbeats)
    assert notes.done[0].memory_bytes > 0


def test_a_stalled_worker_is_killed_and_another_renders_its_clip(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    specs = [spec("sunrise", seed) for seed in range(4)]
    freezing = spec(f"stop once {tmp_path / 'frozen'}")
    notes = dispatch(setup_for(tmp_path), [freezing, *specs], IMPATIENT)
    assert committed(tmp_path) == {freezing.clip_id, *(one.clip_id for one in specs)}
    # The clips that were computing at the last heartbeat.
    assert {failure_class for _, failure_class in failures_of(notes)} == {"stall"}
    (message,) = notes.lost
    label, text = message.split(": ", 1)
    assert text.startswith("stalled: no heartbeat for")
    assert not is_alive(int(label.split(":")[1]))


def is_alive(pid: int) -> bool:
    """Return True if the process still lives after 20 s.

    Its raylet kills a process that does not answer after some seconds.
    """
    try:
        psutil.Process(pid).wait(timeout=20)
    except psutil.NoSuchProcess:
        return False
    except psutil.TimeoutExpired:
        return True
    return False


def test_a_clip_that_hangs_on_every_worker_is_quarantined_and_the_others_are_not(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    specs = [spec("sunrise", seed) for seed in range(4)]
    hanging = spec(f"wait {tmp_path / 'never'}")
    notes = dispatch(setup_for(tmp_path), [hanging, *specs], IMPATIENT)
    assert committed(tmp_path) == {one.clip_id for one in specs}
    assert failures_of(notes) == [(hanging.clip_id, "stall"), (hanging.clip_id, "stall")]
    assert "stalled in denoise after step 2: no progress" in notes.failed[0][0].message
    assert isinstance(notes.failed[1][1], Quarantine)


def test_a_worker_that_gets_sigterm_finishes_its_clips_and_is_replaced(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    specs = [spec(f"wait {gate}", seed) for seed in range(6)]

    class Asking(Notes):
        def worker_ready(self, label: str, identity: WorkerIdentity, warning: str = "") -> None:
            super().worker_ready(label, identity)
            if len(self.ready) == 1:
                os.kill(int(label.split(":")[1]), signal.SIGTERM)

        def worker_heartbeat(self, label: str, heartbeat: WorkerHeartbeat) -> None:
            super().worker_heartbeat(label, heartbeat)
            if heartbeat.is_draining and heartbeat.clips:
                gate.touch()

    notes = Asking()
    dispatcher(setup_for(tmp_path), IMPATIENT, 1, notes).run(iter(specs))
    assert len(notes.done) == 6
    assert not notes.failed
    assert not notes.lost
    assert [message.split(": ")[1] for message in notes.replaced] == [
        "its process received SIGTERM"
    ]


def test_a_worker_is_replaced_after_its_share_of_clips(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    config = replace(CONFIG, workers=replace(CONFIG.workers, recycle_after_clips=4))
    notes = Notes()
    dispatcher(setup_for(tmp_path), config, 1, notes).run(
        spec("sunrise", seed) for seed in range(9)
    )
    assert len(notes.done) == 9
    assert not notes.lost
    assert len(set(notes.ready)) >= 2
    held, ready, freed = (
        [one.worker for one in notes.devices if type(one) is kind]
        for kind in (DevicesHeld, DevicesReady, DevicesFreed)
    )
    assert len(held) == len(set(held)) >= 2, "each worker has its devices once"
    assert set(ready) <= set(held) == set(freed), "and leaves them"
    assert [one.label for one in notes.devices if isinstance(one, DevicesReady)] == notes.ready
    assert notes.replaced[0].endswith("recycled after 4 clips")


def test_a_run_that_must_stop_finishes_what_is_nearly_done_and_leaves_the_rest(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    never = spec(f"wait {tmp_path / 'never'}")

    class Stopping(Notes):
        dispatcher: OneKind | None = None

        def worker_heartbeat(self, label: str, heartbeat: WorkerHeartbeat) -> None:
            if [
                clip for clip in heartbeat.clips if clip.stage == "denoise"
            ] and self.dispatcher is not None:
                self.dispatcher.request_stop("by the test")

    notes = Stopping()
    notes.dispatcher = dispatcher(setup_for(tmp_path), IMPATIENT, 1, notes)
    with pytest.raises(StoppedError, match="by the test"):
        notes.dispatcher.run(iter([never, spec("sunrise")]))
    assert not notes.failed


def test_a_worker_does_not_start_on_a_cordoned_node_or_one_of_another_kind(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    launcher = ActorLauncher(setup_for(tmp_path), CONFIG, CPU)
    pinned = ActorLauncher(setup_for(tmp_path), CONFIG, replace(CPU, labels={"zone": "a"}))
    (node,) = cluster_nodes()
    elsewhere = pinned.start(frozenset())
    waiting, other = (
        launcher.start(frozenset({avoided})) for avoided in (str(node["node_id"]), "f" * 56)
    )
    ray.get(other.load, timeout=120)
    ready, _ = ray.wait([waiting.load, elsewhere.load], timeout=3)
    assert not ready
    for handle in (waiting, other, elsewhere):
        launcher.stop(handle, may_return=False)


def test_a_view_of_the_cluster_leaves_out_what_the_driver_holds(ray_driver: LocalRay) -> None:
    (node,) = (str(node["node_id"]) for node in cluster_nodes())
    view = JoinedCluster(True, node, {"CPU": 1.5}).look()
    assert [machine["CPU"] for machine in view.machines()] == [0.5]
    assert view.machines(frozenset({node})) == []
