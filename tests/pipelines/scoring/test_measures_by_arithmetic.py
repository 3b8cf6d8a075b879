"""Measures without weights, the Frechet distance, and the words of measures and negatives."""

import numpy as np
import pytest
import torch

from pipelines.errors import ScoringError
from pipelines.scoring.frame_statistics import FrameStatisticsMeasure
from pipelines.scoring.frechet import Gaussian, PointSums, frechet_distance
from pipelines.scoring.measures import MEASURES, MeasureSpec, read_measure
from pipelines.scoring.scored_clip import ScoredClip, negatives_of
from pipelines.scoring.shapes_verdict import ShapesVerdict, named_attributes
from pipelines.shapes.world import render_uint8, sample_clip

NO_STILLS = np.zeros((0, 8, 8, 3), np.uint8)


def shapes_clip(prompt: str, *negatives: str, **fixed: str) -> ScoredClip:
    drawn = sample_clip(torch.Generator().manual_seed(3), anywhere=False, **fixed)
    frames = render_uint8([drawn])[0].permute(1, 2, 3, 0).numpy()
    return ScoredClip(prompt, negatives, NO_STILLS, frames)


def test_the_judge_says_exactly_what_is_kept_and_what_is_seen() -> None:
    clip = shapes_clip(
        "a red circle moving left on a black background", "red", "square", "white background",
        colour="red", shape="circle", motion="left", background="white",
    )  # fmt: skip
    found = ShapesVerdict().score(clip)
    assert found.figures == {
        "clean": 1.0, "prompt_kept": 3 / 4, "negative_seen": pytest.approx(2 / 3)
    }  # fmt: skip
    assert found.words == {
        "colour": "red", "shape": "circle", "motion": "left", "background": "white"
    }  # fmt: skip


def test_a_clip_of_another_world_is_refused() -> None:
    frames = np.zeros((2, 64, 32, 3), np.uint8)
    with pytest.raises(ScoringError, match="64x64 pixels, got 32x64"):
        ShapesVerdict().score(ScoredClip("", (), NO_STILLS, frames))


def test_words_within_words_name_nothing() -> None:
    assert named_attributes("a predator squared upon a blackboard") == []
    assert named_attributes("a circle at rest") == [("shape", "circle"), ("motion", "still")]


def test_motion_and_steps_are_levels() -> None:
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    frames[:, :, ::2] = 100
    frames[1] += 10
    frames[2] += 30
    figures = FrameStatisticsMeasure().score(ScoredClip("", (), NO_STILLS, frames)).figures
    assert figures["motion"] == pytest.approx(30)
    assert figures["step_change"] == pytest.approx(15)
    assert FrameStatisticsMeasure().score(ScoredClip("", (), NO_STILLS, frames[:1])).figures == {}


def test_flicker_is_one_for_unrelated_frames_and_small_for_a_slow_pan() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    slow = np.stack([np.tile(np.arange(64, dtype=np.uint8), (64, 1)) + at for at in range(8)])
    measure = FrameStatisticsMeasure()
    found = [
        measure.score(ScoredClip("", (), NO_STILLS, frames)).figures["flicker"]
        for frames in (noise, np.repeat(slow[..., None], 3, axis=3))
    ]
    assert found[0] == pytest.approx(1, abs=0.2)
    assert found[1] < 0.05


def test_the_distance_of_batches_is_that_of_all_points() -> None:
    random = np.random.default_rng(0)
    ours, theirs = random.normal(50, 1, (60, 5)), random.normal(50, 2, (40, 5)) + np.arange(5)
    sums = PointSums()
    for batch in np.array_split(ours.astype(np.float32), 7):
        sums.add(batch)
    batched = sums.gaussian()
    assert batched is not None
    with pytest.raises(ValueError, match="expected points of 5 features, got 4"):
        sums.add(np.zeros((1, 4), np.float32))
    expected = frechet_distance(Gaussian.of(ours), Gaussian.of(theirs))
    assert frechet_distance(batched, Gaussian.of(theirs)) == pytest.approx(expected, rel=1e-4)
    assert frechet_distance(Gaussian.of(ours), Gaussian.of(ours)) == pytest.approx(0, abs=1e-9)
    assert PointSums().gaussian() is None


def test_the_distance_of_two_normal_distributions_is_the_formula() -> None:
    ours = Gaussian(9, np.zeros(2), np.diag([1.0, 4.0]))
    theirs = Gaussian(9, np.array([3.0, 0.0]), np.diag([9.0, 16.0]))
    assert frechet_distance(ours, theirs) == pytest.approx(9 + (3 - 1) ** 2 + (4 - 2) ** 2)


def test_a_measure_is_read_with_its_source_and_revision() -> None:
    spec = read_measure("clip=openai/clip-vit-base-patch16@abc", 4, "is {negative}?")
    assert spec == MeasureSpec("clip", "openai/clip-vit-base-patch16", "abc", 4)
    assert read_measure("vqa", 3, "see {negative}?").question == "see {negative}?"
    assert read_measure("frames", 3, "") == MeasureSpec("frames")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clap", "expected one of frames, shapes, clip"),
        ("frames=./folder", "it needs no weights"),
        ("hps", "name a hub id or a folder with HPSv2's weights"),
        ("vqa", "must hold {negative}"),
    ],
)
def test_a_wrong_measure_is_refused_with_what_is_expected(text: str, message: str) -> None:
    with pytest.raises(ScoringError) as caught:
        read_measure(text, 4, "is there?")
    assert message in str(caught.value)


def test_the_digest_covers_all_that_decides_the_figures() -> None:
    spec = MeasureSpec("clip", "a/b", "r", 4)
    digests = {
        spec.digest("0" * 64, ("a fox",)),
        spec.digest("1" * 64, ("a fox",)),
        spec.digest("0" * 64, ("a fox", "snow")),
        MeasureSpec("clip", "a/b", "r", 5).digest("0" * 64, ("a fox",)),
        MeasureSpec("clip", "a/b", "s", 4).digest("0" * 64, ("a fox",)),
        MeasureSpec("hps", "a/b", "r", 4).digest("0" * 64, ("a fox",)),
    }
    assert len(digests) == 6


def test_a_negative_prompt_is_cut_at_its_commas() -> None:
    assert negatives_of("red, blue square ,, red,\n fog.") == ("red", "blue square", "fog")
    assert negatives_of("  ") == ()
    assert len(negatives_of(",".join(map(str, range(99))))) == 16


def test_each_measure_says_what_its_figures_mean() -> None:
    for name, kind in MEASURES.items():
        assert kind.summary, name
        assert kind.is_of_a_set == (name in ("fid", "pfid"))
        assert bool(kind.weights) == (name not in ("frames", "shapes"))
