"""The status of a run, for the tests of what shows it."""

from jobs.records.run_status import ClipInFlight, KindStatus, RunState, RunStatus
from jobs.records.schema import utc_iso
from tests.builders.records import AT_S, RUN_ID

CLIP_ID = "0123456789abcdef" * 2


def status_of(state: RunState = "rendering", at_s: float = AT_S, run_id: str = RUN_ID) -> RunStatus:
    return RunStatus(
        run_id=run_id,
        state=state,
        updated_at=utc_iso(at_s),
        num_clips=2000,
        num_done_before=10,
        num_committed=20,
        num_quarantined=1,
        num_failures=3,
        num_workers=2,
        num_workers_lost=1,
        busy_share=0.981,
        stop=None,
        output_day=None,
        deadline=None,
        elapsed_s=600.0,
        clips_per_hour=120.0,
        eta_s=7200.0,
        eta_low_s=5400.0,
        eta_high_s=10800.0,
        waiting_for=None,
        loading=(),
        kinds=(
            KindStatus("wan", 81, 480, 832, 8, 1, 1500, 20, 1, 1, 120.0, 55.0),
            KindStatus("ltx", 97, 512, 768, 30, 2, 490, 0, 0, 0, None, None),
        ),
        in_flight=(ClipInFlight(CLIP_ID, "spring-31", "host-a:12", "denoise", 3, 8, 12.5),),
        last_failures=(),
        num_log_bytes_dropped=0,
        log_trouble=None,
    )
