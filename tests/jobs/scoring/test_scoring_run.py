"""A scoring run on outputs of true Shapes clips: its records, its resumption and its figures."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_FINDINGS, EXIT_OK, EXIT_REFUSED
from jobs.errors import RecordError
from jobs.records.commit import JSON
from jobs.records.keys import list_keys, parse_key, score_key
from jobs.records.scores.score_record import ScoreRecord, as_base64, points_in, score_parser
from jobs.scoring.figures import FigureSums
from jobs.scoring.pool import PoolHere
from jobs.scoring.reference_cache import ReferenceCache
from jobs.scoring.references import find_references
from jobs.scoring.scoring_run import ScoringRun, find_measures
from jobs.scoring.tasks import Task, TaskOutcome
from jobs.settings.run_config import RunConfig, StoreConfig
from jobs.store.store import Store, open_store
from jobs.upkeep.audit import AuditParams, audit_output
from jobs.upkeep.garbage import find_garbage
from jobs.upkeep.pruning import Unnamed, remove_clip, sort_clips
from pipelines.scoring.frechet import Gaussian, frechet_distance
from pipelines.scoring.measures import MeasureSpec
from tests.builders import scorers
from tests.builders.shapes_outputs import commit_drawn, drawn

CLIPS = (
    drawn("a red circle", "blue", colour="red", shape="circle"),
    drawn("a red circle", "red, square", seed=1, colour="red", shape="circle"),
    drawn("a red square", method="none", unwanted="cross", colour="blue", shape="cross"),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An output of three committed clips."""
    (tmp_path / "out").mkdir()
    store = open_store((tmp_path / "out").as_uri(), StoreConfig())
    for clip in CLIPS:
        commit_drawn(store, clip)
    return store


def run_of(store: Store, *specs: MeasureSpec) -> tuple[ScoringRun, PoolHere]:
    measures = find_measures(specs)
    cache = ReferenceCache(Path(store.uri.removeprefix("file://")).parent / "cache")
    scoring = ScoringRun(store, measures, lambda _clip: True, cache=cache)
    return scoring, PoolHere(measures.setup(store.uri, RunConfig()))


def scores_of(store: Store) -> list[ScoreRecord]:
    return [score_parser(one.key)(store.get(one.key)) for one in list_keys(store, "score")]


def test_each_clip_gets_a_record_a_measure_once(store: Store) -> None:
    scoring, pool = run_of(store, MeasureSpec("frames"), MeasureSpec("shapes"))
    scoring.score(pool)
    assert (scoring.progress.num_written, scoring.progress.num_trouble) == (6, 0)
    by_name = {(one.measure, one.negatives): one for one in scores_of(store)}
    assert by_name["shapes", ("red", "square")].figures == {
        "clean": 1.0, "prompt_kept": 1.0, "negative_seen": 0.5
    }  # fmt: skip
    assert by_name["shapes", ("cross",)].figures == {
        "clean": 1.0, "prompt_kept": 0.0, "negative_seen": 1.0
    }  # fmt: skip
    assert set(by_name["frames", ("blue",)].figures) == {"motion", "step_change", "flicker"}
    before = {one.key: store.get(one.key) for one in list_keys(store, "score")}

    commit_drawn(store, drawn("a cross", seed=9, shape="cross"))
    again, pool = run_of(store, MeasureSpec("frames"), MeasureSpec("shapes"))
    again.score(pool)
    assert again.progress.num_tasks_done == 1, "the clips that are scored are not looked at again"
    assert again.progress.num_scored == 4
    assert {key: store.get(key) for key in before} == before


def test_groups_have_means_with_intervals(store: Store) -> None:
    scoring, pool = run_of(store, MeasureSpec("shapes"))
    scoring.score(pool)
    nag, none = scoring.figures(lambda record, _: [(record.request.method,)])
    if nag.group == ("none",):
        nag, none = none, nag
    assert (nag.num_clips, none.num_clips) == (2, 1)
    figures = {figure.name: figure for figure in nag.figures}
    assert figures["negative_seen"].mean == 0.25
    half = 1.959964 * np.std([0.0, 0.5], ddof=1) / np.sqrt(2)
    assert figures["negative_seen"].half_width == pytest.approx(half)
    assert {figure.half_width for figure in none.figures} == {None}


def test_other_weights_are_scored_anew_and_the_distance_is_the_formula(
    store: Store, tmp_path: Path
) -> None:
    folder = scorers.dino_folder(tmp_path / "dino")
    for number in range(5):
        (tmp_path / "references").mkdir(exist_ok=True)
        path = tmp_path / "references" / f"{number}.png"
        Image.fromarray(scorers.picture(number)).save(path)
    (tmp_path / "references" / "broken.jpg").write_bytes(b"no picture")
    scoring, pool = run_of(store, MeasureSpec("fid", str(folder), num_stills=3))
    scoring.score(pool)
    theirs = scoring.place_references(find_references(tmp_path / "references"), pool)
    assert scoring.progress.trouble[0].startswith("reference broken.jpg: fid: expected a PNG")
    (group,) = scoring.figures(lambda _record, _scores: [()], theirs)
    ours = np.concatenate([one.points() for one in scores_of(store)])
    assert ours.shape == (9, scorers.WIDTH)
    (figure,) = group.figures
    expected = frechet_distance(Gaussian.of(ours), theirs["fid"])
    assert (figure.num, figure.mean) == (9, pytest.approx(expected, rel=1e-5))

    config = json.loads((folder / "preprocessor_config.json").read_text())
    config["image_mean"] = [0.0, 0.0, 0.0]
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    again, pool = run_of(store, MeasureSpec("fid", str(folder), num_stills=3))
    again.score(pool)
    assert again.progress.num_written == 3
    assert len({one.revision for one in scores_of(store)}) == 2


def test_references_are_placed_once_and_again_if_one_changes(store: Store, tmp_path: Path) -> None:
    folder, pictures = scorers.dino_folder(tmp_path / "dino"), tmp_path / "references"
    pictures.mkdir()
    for number in range(3):
        Image.fromarray(scorers.picture(number)).save(pictures / f"{number}.png")
    scoring, pool = run_of(store, MeasureSpec("fid", str(folder), num_stills=3))
    scoring.score(pool)
    first = scoring.place_references(find_references(pictures), pool)["fid"]
    known = scoring.place_references(find_references(pictures), NoPool())["fid"]
    assert (known.num, known.mean.tolist()) == (first.num, first.mean.tolist())
    np.testing.assert_array_equal(known.covariance, first.covariance)
    (entry,) = scoring.cache.folder.iterdir()
    entry.write_bytes(b"other bytes")
    again = scoring.place_references(find_references(pictures), pool)["fid"]
    assert again.mean.tolist() == first.mean.tolist(), "a damaged entry costs time alone"
    Image.fromarray(scorers.picture(9)).save(pictures / "0.png")
    changed = scoring.place_references(find_references(pictures), pool)["fid"]
    assert changed.mean.tolist() != first.mean.tolist()


class NoPool:
    """A pool that gets no task."""

    def run(self, tasks: Iterable[Task]) -> Iterator[TaskOutcome]:
        raise AssertionError("nothing is left to do")


def test_a_clip_that_a_measure_does_not_take_is_named_and_the_others_go_on(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = commit_drawn(store, drawn("a fox", seed=5, shape="cross"))
    store.put(scored.key, bytes(scored.num_bytes), "video/mp4")
    assert main(["score", store.uri, "--here", "--measure", "shapes"]) == EXIT_FINDINGS
    captured = capsys.readouterr()
    assert f"not scored: clip {scored.clip_id}: {scored.key} has other bytes" in captured.err
    assert "4 clips, 3 with every score; 3 scores written" in captured.out


def test_the_command_prints_a_table_and_json(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["score", store.uri, "--here", "--measure", "shapes", "--by", "method"]
    assert main(words) == EXIT_OK
    printed = capsys.readouterr().out
    assert "shapes.negative_seen" in printed
    assert "3 clips, 3 with every score; 3 scores written" in printed
    assert main([*words, "--json", "--method", "none"]) == EXIT_OK
    document = json.loads(capsys.readouterr().out)
    assert (document["num_clips"], document["num_written"]) == (1, 0)
    (group,) = document["groups"]
    assert group["group"] == {"method": "none"}
    assert group["figures"]["shapes.negative_seen"] == {"mean": 1.0, "half_width": None, "num": 1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--measure", "fid"], "name a folder of pictures with --references"),
        (["--measure", "clip", "--measure", "clip"], "is named twice"),
        (["--stills", "0"], "--stills: expected 1 to 64, got 0"),
        (["--measure", "hps=./gone"], "does not exist; it must hold HPSv2's weights"),
        (["--by", "colour"], "--by: "),
        (["--measure", "fid", "--references", "./gone"], "gone is not a folder"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_runs(
    store: Store, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["score", store.uri, "--here", *words]) == EXIT_REFUSED
    assert message in capsys.readouterr().err
    assert scores_of(store) == []


def test_scores_of_a_clip_that_is_gone_are_garbage(store: Store) -> None:
    scoring, pool = run_of(store, MeasureSpec("frames"))
    scoring.score(pool)
    record = commit_drawn(store, CLIPS[0])
    assert find_garbage(store, -10.0) == []
    in_a_minute = store.now() + 60
    assert orphans_of(store, in_a_minute) == []
    store.delete(f"records/{record.clip_id}.json")
    kinds = sorted(one.kind for one in find_garbage(store, -10.0))
    assert kinds == ["clip", "score"]
    (mp4, score) = sorted(orphans_of(store, in_a_minute))
    assert mp4.startswith("clips/")
    assert score.endswith("a score of a clip that is not committed")


def orphans_of(store: Store, written_before: float) -> list[str]:
    audited = audit_output(store, AuditParams(written_before))
    return [finding.message for clip in audited for finding in clip.findings
            if finding.kind == "orphan"]  # fmt: skip


def test_a_clip_that_is_pruned_takes_its_scores_along(store: Store) -> None:
    scoring, pool = run_of(store, MeasureSpec("frames"))
    scoring.score(pool)
    kept = commit_drawn(store, CLIPS[0]).clip_id
    in_a_minute = store.now() + 60
    for clip in sort_clips(store, {kept}, in_a_minute):
        if isinstance(clip, Unnamed):
            assert remove_clip(store, clip.objects, in_a_minute)
    assert {one.clip_id for one in list_keys(store, "score")} == {kept}
    assert {one.clip_id for one in list_keys(store, "record")} == {kept}


def test_a_damaged_score_is_refused_and_left_out_of_the_figures(store: Store) -> None:
    scoring, pool = run_of(store, MeasureSpec("shapes"))
    scoring.score(pool)
    scores = scores_of(store)
    store.put(scores[0].key, scores[1].to_json(), JSON)
    with pytest.raises(RecordError, match="expected the score of"):
        score_parser(scores[0].key)(store.get(scores[0].key))
    groups = scoring.figures(lambda _record, _scores: [()])
    assert groups[0].num_clips == 3
    assert {figure.num for figure in groups[0].figures if figure.name == "clean"} == {2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": "*"}, "must be base64"),
        ({"vectors": as_base64(np.zeros((1, 3), np.float32))}, "must hold 2 points"),
        ({"vectors": as_base64(np.full((2, 3), np.nan, np.float32))}, "must be finite"),
    ],
)
def test_vectors_of_strangers_are_checked(change: dict[str, str], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        points_in(change["vectors"], 2)


def test_keys_of_scores_are_read_back() -> None:
    key = score_key("a" * 32, "clip", "0123456789abcdef")
    parsed = parse_key(key)
    assert parsed is not None
    assert (parsed.kind, parsed.measure, parsed.digest) == ("score", "clip", "0123456789abcdef")
    for measure, digest in (("../x", "0" * 16), ("clip", "0" * 15), ("CLIP", "0" * 16)):
        with pytest.raises(RecordError, match="cannot be the score"):
            score_key("a" * 32, measure, digest)


def test_points_of_other_sizes_are_an_error_that_names_the_score(store: Store) -> None:
    scoring, pool = run_of(store, MeasureSpec("frames"))
    scoring.score(pool)
    score = scores_of(store)[0]
    sums = FigureSums({})
    for width in (3, 4):
        points = as_base64(np.zeros((1, width), np.float32))
        changed = replace(score, measure="fid", num_vectors=1, vectors=points)
        if width == 3:
            sums.add((), [changed])
        else:
            with pytest.raises(RecordError, match="expected points of 3 features, got 4"):
                sums.add((), [changed])
