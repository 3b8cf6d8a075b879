"""From an output of 200 clips to a rendered second take of 12 picks, each step as a user does it.

`benchmarks.second_take` measures the same.
"""

import json
from pathlib import Path

import pytest

from benchmarks.second_take import CLIPS_A_SEED, NUM_PICKS, STEPS, first_take, second_take
from jobs.records.commit import committed_ids, read_record
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store
from tests.builders.browser import chromium

pytestmark = [
    pytest.mark.slow, pytest.mark.cluster, pytest.mark.models, pytest.mark.timeout(1200),
]  # fmt: skip


def test_twelve_picks_of_200_clips_are_rendered_again(tmp_path: Path) -> None:
    with chromium():  # before anything is rendered, skip without a browser
        pass
    first_take(tmp_path, num_seeds=8)
    store = open_store(str(tmp_path / "out"), StoreConfig())
    before = set(committed_ids(store))
    assert len(before) == 8 * CLIPS_A_SEED == 200
    second_take(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert len(rows) == NUM_PICKS
    fresh = [read_record(store, one) for one in set(committed_ids(store)) - before]
    asked = {(row["prompt"], row["negative_prompt"], row["seed"]) for row in rows}
    assert len(asked) == NUM_PICKS
    assert {
        (one.request.prompt, one.request.negative_prompt, one.request.sampling.seed)
        for one in fresh
    } == asked
    assert {one.request.sampling.num_inference_steps for one in fresh} == {STEPS}
