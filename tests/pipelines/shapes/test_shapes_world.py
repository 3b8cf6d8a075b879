"""The Shapes world, its captions and its judge, without any model."""

import numpy as np
import pytest
import torch

from pipelines.shapes.captions import caption, phrase, sentence, terse_caption
from pipelines.shapes.judge import judge
from pipelines.shapes.training.text import attribute_targets
from pipelines.shapes.world import (
    ATTRIBUTES,
    NUM_FRAMES,
    SHAPES,
    SIZE_PX,
    ShapesClip,
    render,
    sample_clip,
)


def clips(count: int, seed: int = 0) -> list[ShapesClip]:
    generator = torch.Generator().manual_seed(seed)
    return [sample_clip(generator) for _ in range(count)]


def frames_of(clip: ShapesClip) -> np.ndarray:
    return render(clip).round().to(torch.uint8).numpy()


def test_a_clip_is_64_by_64_and_17_frames_long() -> None:
    assert frames_of(clips(1)[0]).shape == (NUM_FRAMES, SIZE_PX, SIZE_PX, 3) == (17, 64, 64, 3)


def test_the_world_is_as_large_as_promised() -> None:
    assert {name: len(values) for name, values in ATTRIBUTES.items()} == {
        "colour": 6, "shape": 4, "motion": 5, "background": 3,
    }  # fmt: skip


def test_the_same_seed_draws_the_same_clips() -> None:
    assert clips(20) == clips(20) != clips(20, seed=1)


def test_a_fixed_attribute_is_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    assert {sample_clip(generator, colour="red").colour for _ in range(20)} == {"red"}


def test_no_shape_ever_leaves_the_frame() -> None:
    for clip in clips(100):
        frames = frames_of(clip).astype(int)
        edge = np.concatenate(
            [frames[:, [0, -1]].reshape(-1, 3), frames[:, :, [0, -1]].reshape(-1, 3)]
        )
        assert np.ptp(edge, axis=0).max() == 0


def test_the_judge_reads_every_attribute_of_true_clips() -> None:
    for clip in clips(150):
        verdict = judge(frames_of(clip))
        assert verdict.is_clean
        assert (verdict.colour, verdict.shape, verdict.motion, verdict.background) == (
            clip.colour, clip.shape, clip.motion, clip.background,
        )  # fmt: skip


def second_shape(frames: np.ndarray) -> np.ndarray:
    other = frames_of(
        sample_clip(torch.Generator().manual_seed(77), background="black", motion="still")
    )
    ghost = np.abs(other.astype(int) - other[0, 0, 0]).sum(axis=-1, keepdims=True) > 100
    return np.where(ghost, other, frames).astype(np.uint8)


BREAKAGES = {
    "grey": lambda frames: np.full_like(frames, 127),
    "black": np.zeros_like,
    "noise": lambda frames: np.random.default_rng(0).integers(0, 256, frames.shape, dtype=np.uint8),
    "speckles": lambda frames: np.where(
        np.random.default_rng(0).random(frames.shape[:3])[..., None] < 0.05, 255 - frames, frames
    ),
    "faded": lambda frames: (frames * 0.3 + 127 * 0.7).astype(np.uint8),
    "a second shape": second_shape,
    "jumping": lambda frames: np.stack(
        [np.roll(f, 12 * (i % 2), axis=0) for i, f in enumerate(frames)]
    ),
    "gone half-way": lambda frames: np.concatenate(
        [frames[:9], np.full_like(frames[9:], frames[0, 0, 0])]
    ),
    "smeared": lambda frames: np.repeat(
        frames.mean(axis=0, keepdims=True), len(frames), axis=0
    ).astype(np.uint8),
    "frames shuffled": lambda frames: frames[np.random.default_rng(1).permutation(len(frames))],
    "half a shape": lambda frames: np.where(
        np.arange(64)[None, :, None, None] < 32, frames, frames[:, :1, :1]
    ),
}


@pytest.mark.parametrize("name", list(BREAKAGES))
@pytest.mark.parametrize("shape", SHAPES)
def test_the_judge_calls_no_broken_clip_clean(name: str, shape: str) -> None:
    clip = ShapesClip(
        "red", shape, "right", "black", radius_px=9.0, start_xy_px=(18.0, 32.0), speed_px=1.25
    )
    assert judge(frames_of(clip)).is_clean
    assert not judge(np.ascontiguousarray(BREAKAGES[name](frames_of(clip)))).is_clean


def test_a_caption_names_some_attributes_and_leaves_the_rest_open() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = clips(400)
    captions = [caption(clip, generator) for clip in drawn]
    for attribute, target in attribute_targets(drawn, captions).items():
        is_open = target == len(ATTRIBUTES[attribute])
        assert 0.3 < is_open.float().mean() < 0.7
    assert 0.02 < sum(not text for text in captions) / len(captions) < 0.25


def test_a_named_attribute_is_true() -> None:
    generator = torch.Generator().manual_seed(0)
    for clip in clips(200):
        words = caption(clip, generator).lower().replace(",", "").split()
        for attribute in ("colour", "shape", "background"):
            assert {getattr(clip, attribute)} >= set(words) & set(ATTRIBUTES[attribute])


def test_captions_use_natural_phrases() -> None:
    generator = torch.Generator().manual_seed(3)
    named = {"colour": "red", "shape": "circle", "motion": "left", "background": "black"}
    assert "red circle" in sentence(named, generator)
    assert set(terse_caption(named, generator).split(", ")) == {
        "red",
        "circle",
        "moving left",
        "black background",
    }
    assert phrase("motion", "still") == "standing still"
