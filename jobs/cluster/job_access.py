"""The right to submit jobs to a cluster with `ray job submit`, from this shell, and a small job.

Ray's drivers and `ray start` show the token that they find. The client that submits jobs shows it
only with RAY_AUTH_MODE=token, and gets 401 otherwise. Seen with ray 2.60.
"""

import contextlib
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from ray.job_submission import JobStatus, JobSubmissionClient

from jobs.cluster.ray_errors import first_line
from jobs.cluster.reach import REACH_S
from jobs.errors import ClusterUnreachableError, NoClusterError
from jobs.text import shown

MODE = "RAY_AUTH_MODE"
BEFORE = f"put {MODE}=token before `ray job submit`, or export it"
POLL_S = 0.5
GENERATE = "`ray get-auth-token --generate` makes one"


@dataclass(frozen=True)
class JobAccess:
    """A finding. `is_ok` is None if nothing was asked and a job may be refused."""

    is_ok: bool | None
    message: str


def job_access(url: str | None) -> JobAccess:
    """Return whether jobs are taken at the URL of a cluster, with what this shell would show.

    Args:
        url: `http://host:port` of the dashboard; None only looks for the token.
    """
    token, shows_it = find_token(), os.environ.get(MODE, "").lower() == "token"
    if shows_it and token is None:
        return JobAccess(is_ok=False, message=f"{MODE}=token, and no token is here; {GENERATE}")
    if url is not None:
        return _ask(url, token, shows_it=shows_it)
    if shows_it:
        return JobAccess(is_ok=True, message=f"{MODE}=token, and the token is here")
    if token is None:
        none = f"there is none, so a cluster started here takes anyone's jobs; {GENERATE}"
        return JobAccess(is_ok=None, message=none)
    return JobAccess(is_ok=None, message=f"it is here, and jobs do not show it: {BEFORE}")


def find_token() -> str | None:
    """Return the token where Ray looks for it: RAY_AUTH_TOKEN, or a file; None without one."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        file = Path(path) if path else Path.home() / ".ray" / "auth_token"
        return file.read_text().strip() or None
    except (OSError, RuntimeError, ValueError):  # missing, no home folder, not text
        return None


def _ask(url: str, token: str | None, *, shows_it: bool) -> JobAccess:
    headers = {"Authorization": f"Bearer {token}"} if shows_it else {}
    try:
        address = f"{url.rstrip('/')}/api/jobs/"
        request = urllib.request.Request(address, headers=headers)  # noqa: S310 http or https
        with urllib.request.urlopen(request, timeout=REACH_S):  # noqa: S310
            return JobAccess(is_ok=True, message=f"{url} takes jobs from this shell")
    except urllib.error.HTTPError as error:
        with error:
            reason = {
                401: f"{url} asks for a token: {BEFORE}"
                + ("" if token else ", and put the cluster's token into RAY_AUTH_TOKEN"),
                403: f"{url} has another token: put the cluster's into RAY_AUTH_TOKEN",
            }.get(error.code, f"{url} answers {error.code}: it is not a cluster's dashboard")
    except (OSError, ValueError) as error:
        reason = f"no dashboard at {url}: {shown(str(error), 200)}"
    return JobAccess(is_ok=False, message=reason)


def output_of_job(url: str, entrypoint: str, working_dir: Path, wait_s: float) -> list[str]:
    """Run a command as a job of a cluster, and return the lines that it printed.

    Args:
        url: `http://host:port` of the dashboard.
        entrypoint: the command, as a shell reads it.
        working_dir: a small folder, which the job gets as its own.
        wait_s: seconds for the job.

    Raises:
        NoClusterError: the cluster takes no job from this shell, or the job failed.
        ClusterUnreachableError: it does not answer.
    """
    access = job_access(url)
    if access.is_ok is False:
        raise NoClusterError(access.message)
    try:
        client = JobSubmissionClient(url)
        job = client.submit_job(
            entrypoint=entrypoint, runtime_env={"working_dir": str(working_dir)}
        )
        try:
            status = _ended(client, job, wait_s)
            lines = client.get_job_logs(job).splitlines()
        finally:
            with contextlib.suppress(RuntimeError):  # it has ended
                client.stop_job(job)
    except (RuntimeError, OSError) as error:  # the errors of Ray's client and of `requests`
        raise ClusterUnreachableError(f"no answer of {url}: {first_line(error)}") from error
    if status != JobStatus.SUCCEEDED:
        last = next((line for line in reversed(lines) if line.strip()), f"it is {status}")
        raise NoClusterError(f"the job {job} of {url} failed: {shown(last, 500)}")
    return lines


def _ended(client: JobSubmissionClient, job: str, wait_s: float) -> JobStatus:
    deadline_s = time.monotonic() + wait_s
    while not (status := client.get_job_status(job)).is_terminal():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"the job {job} has not ended within {wait_s:g} s")
        time.sleep(POLL_S)
    return status
