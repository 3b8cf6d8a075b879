"""The judge on clips that are broken on purpose, and its measure of movement."""

import numpy as np
import pytest
import torch

from pipelines.shapes.evaluation.breakages import TRUE, broken_frames, draw_broken
from pipelines.shapes.judge import judge
from pipelines.shapes.world import MOTIONS, NUM_FRAMES, ShapesClip, render_uint8, sample_clip


def verdicts(kind: str, count: int = 12) -> list[tuple[ShapesClip, bool, str | None]]:
    found: list[tuple[ShapesClip, bool, str | None]] = []
    for index in range(count):
        clip, frames = draw_broken(kind, index)
        verdict = judge(frames)
        found.append((clip, verdict.is_clean, verdict.motion))
    return found


def test_a_clip_that_is_not_broken_is_the_true_clip() -> None:
    clip, frames = draw_broken(TRUE, 0)
    assert np.array_equal(frames, render_uint8([clip])[0].permute(1, 2, 3, 0).numpy())
    assert all(is_clean for _, is_clean, _ in verdicts(TRUE))


@pytest.mark.parametrize(
    "kind", ["grey", "black", "noise", "half transparent", "wrong size", "jumping"]
)
def test_the_judge_sees_plain_faults(kind: str) -> None:
    assert not any(is_clean for _, is_clean, _ in verdicts(kind))


@pytest.mark.parametrize(
    "kind", ["ghost of a second shape", "uneven colour", "between two colours"]
)
def test_the_judge_sees_most_faint_faults(kind: str) -> None:
    assert sum(is_clean for _, is_clean, _ in verdicts(kind, 20)) <= 8


@pytest.mark.parametrize("kind", ["blurred", "between two shapes"])
def test_the_judge_lets_wrong_outlines_pass(kind: str) -> None:
    """A known weakness, which the report states: "clean" says little about the outline."""
    assert sum(is_clean for _, is_clean, _ in verdicts(kind)) >= 9


def test_a_frozen_clip_is_a_clean_one_that_stands_still() -> None:
    for clip, is_clean, motion in verdicts("frozen"):
        assert clip.motion != "still"
        assert (is_clean, motion) == (True, "still")


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_judge_measures_how_far_a_shape_moves(motion: str) -> None:
    clip = sample_clip(torch.Generator().manual_seed(1), motion=motion)
    moved = judge(broken_frames(TRUE, clip, torch.Generator())).moved_px
    assert moved is not None
    assert moved == pytest.approx([axis * (NUM_FRAMES - 1) for axis in MOTIONS[motion]], abs=0.3)


def test_a_clip_without_a_shape_has_no_displacement() -> None:
    assert judge(np.full((17, 64, 64, 3), 127, dtype=np.uint8)).moved_px is None
