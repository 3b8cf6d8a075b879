"""Faults of what the driver writes itself: its log, and an output that is full.

`scenarios` states how the run must end.
"""

import time

from infra.local.faulty_proxy import Faults
from jobs.overview.output_status import read_output_status
from tests.chaos.harness.farm import PipedDriver
from tests.chaos.harness.faults import at_random_moment, fill
from tests.chaos.harness.runner import ScenarioError, ScenarioRun

MAX_OUTAGE_S = 12.0
MAX_END_S = 45.0  # with the last retries of an upload, and with Ray's own end


def fill_log_disk(run: ScenarioRun) -> int:
    """Fill the disk of the driver's log to the run's end."""
    log = run.farm.logs / f"{run.manifest.stem}.log"
    if not at_random_moment(run, 2):
        return 0
    try:
        fill(log)
        return count_lost_log(run)
    finally:
        log.write_bytes(b"")


def end_log_reader(run: ScenarioRun) -> int:
    """Kill the reader of the driver's log."""
    assert isinstance(run.driver, PipedDriver)
    is_at_work = at_random_moment(run, 2)
    run.driver.reader.kill()
    run.driver.reader.wait()
    return count_lost_log(run) if is_at_work else 0


def count_lost_log(run: ScenarioRun) -> int:
    """Return 1 if the last status of the run says that its log was lost, else 0."""
    run.wait_until(lambda: False, "the run's end")
    status = read_output_status(run.store).run
    return int(status is not None and status.num_log_bytes_dropped > 0)


def fill_output(run: ScenarioRun) -> int:
    """Let the store take no write until the run has stopped, soon; then resume the run."""
    if not at_random_moment(run, 2):
        return 0
    run.farm.proxy.faults = Faults(every_nth_put_answers_503=1)
    started = time.monotonic()
    run.finish()
    end_s = time.monotonic() - started - MAX_OUTAGE_S
    if end_s > MAX_END_S:
        raise ScenarioError(f"the driver ended {end_s:.0f} s after the longest outage")
    run.farm.proxy.faults = Faults()
    run.start_driver("--takeover")  # it could not release its lease
    return 1
