"""The state of a run in words: at work, ended, dead, or replaced; its time left, its kinds."""

from jobs.overview.output_status import AT_WORK, is_active
from jobs.records.lease_record import LeaseRecord, seconds_of
from jobs.records.run_status import KindStatus, RunDeadline, RunStatus
from jobs.text import counted, duration


def run_state_text(run: RunStatus, lease: LeaseRecord | None, now: float) -> str:
    """Return the state of a run in words: at work, ended, dead, or replaced by another driver."""
    age_s = now - seconds_of(run.updated_at)
    age = f"{duration(age_s)} ago"
    reason = f": {run.stop.message}" if run.stop else ""
    if run.state not in AT_WORK:
        return f"{run.state} {age}{reason}"
    if is_active(run, lease, now):
        if lease is not None and age_s > seconds_of(lease.expires_at) - seconds_of(
            lease.renewed_at
        ):
            return (
                f"{run.state}, last status {age}, although its driver is alive: "
                "the clips shown here are stale"
            )
        return f"{run.state}, last heartbeat {age}{reason}"
    if lease is not None and lease.run_id != run.run_id:
        return (
            f"{run.state} at its last heartbeat, {age}; another driver has taken this output since"
        )
    if lease is not None and lease.is_released:
        ended_s = now - seconds_of(lease.renewed_at)
        return f"its driver ended {duration(ended_s)} ago without a final status{reason}"
    last_seen = max(run.updated_at, lease.renewed_at) if lease is not None else run.updated_at
    asked = f"; it had been asked to stop{reason}" if run.stop else ""
    return (
        f"last heartbeat {duration(now - seconds_of(last_seen))} ago: the driver is dead or cannot "
        f"reach the store; render resumes the run{asked}"
    )


def left_text(run: RunStatus) -> str:
    """Return the likely time that is left of a run, with its range; empty without a pace."""
    if run.eta_s is None or run.eta_low_s is None or run.eta_high_s is None:
        return ""
    low, high = duration(run.eta_low_s), duration(run.eta_high_s)
    return f"about {duration(run.eta_s)} left ({low if low == high else f'{low} to {high}'})"


def kind_size(kind: KindStatus) -> str:
    """Return the size of a kind of clip in words, such as "81 x 832x480, 30 steps"."""
    steps = counted(kind.num_inference_steps, "step")
    return f"{kind.num_frames} x {kind.width}x{kind.height}, {steps}"


def deadline_text(deadline: RunDeadline, now: float) -> str:
    left_s = seconds_of(deadline.at) - now
    return f"{deadline.at}, " + (f"in {duration(left_s)}" if left_s > 0 else "which is past")
