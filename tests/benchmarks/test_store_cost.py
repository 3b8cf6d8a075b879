"""The benchmark of upload and commit, in its tiny form on the tests' S3 server."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from benchmarks.command import main
from benchmarks.report import Result
from benchmarks.store import __main__ as command
from benchmarks.store.clients import BOTO3, CLIENTS, FARM, RCLONE, SAME, make_clips
from infra.local.s3_server import LocalS3


@pytest.mark.s3
def test_each_client_writes_all_clips_and_the_farm_sends_three_requests_a_clip(
    s3_environment: LocalS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "LocalS3", lambda: nullcontext(s3_environment))
    main(command.BENCHMARK, [str(tmp_path / "store"), "--tiny"])
    result = Result.read(tmp_path / "store.json")
    requests = result.cases["requests"]
    assert (requests[FARM], requests[BOTO3], requests[SAME]) == (3, 2, 3)
    assert requests[RCLONE] > 2
    assert set(result.cases["turn 1"]["seconds"]) == set(CLIENTS)
    assert len(result.figures) == 2


def test_the_figures_compare_with_the_better_of_the_other_clients() -> None:
    def turn(**seconds: float) -> dict[str, object]:
        by_client = dict(zip((FARM, BOTO3, SAME, RCLONE), seconds.values(), strict=True))
        return {"num_clips": 1, "num_bytes": 1, "seconds": by_client}

    cases = {
        "requests": {},
        "turn 1": turn(farm=5.0, boto3=3.0, same=4.0, rclone=6.0),
        "turn 2": turn(farm=5.0, boto3=6.0, same=5.0, rclone=10.0),
    }
    better, same = command.figures(cases)
    assert (better.value, better.floor) == (0.9, 1.0)
    assert better.is_met
    assert same.value == pytest.approx(0.9)
    assert not list(command.figures({"requests": {}}))


def test_clips_are_drawn_again_alike_and_differ_from_each_other() -> None:
    clips = make_clips(20, 4_000_000, seed=3)
    assert clips == make_clips(20, 4_000_000, seed=3)
    assert len({clip.clip_id for clip in clips}) == len({clip.body for clip in clips}) == 20
    assert 200_000 <= min(len(clip.body) for clip in clips) < 1_000_000
    assert 1_000_000 < max(len(clip.body) for clip in clips) <= 4_000_000
