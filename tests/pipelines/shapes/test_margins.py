"""The frame checks of the Shapes models: good clips pass with a margin, broken ones are refused."""

import pytest

from pipelines.catalog.files.sources import model_paths
from pipelines.catalog.model_folder import inspect_model
from pipelines.catalog.model_yaml import load_model_config
from pipelines.families.registry import load_model
from pipelines.frame_checks.checks import measure_frames
from pipelines.shapes.measuring.margins import MODEL_NAMES, make_clips, spoil, table

pytestmark = pytest.mark.models


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_good_clips_keep_their_distance_and_broken_ones_are_refused(name: str) -> None:
    path = model_paths()[name]
    config = load_model_config(path)
    family = load_model(config, inspect_model(config, path), 1)
    limits = config.frame_checks
    good = make_clips(family, config, 12)
    assert [clip.request.prompt for clip in good if clip.refusal(limits)] == []
    for clip in good:
        assert clip.video is not None
        found = measure_frames(clip.video.frames)
        assert found.motion is not None
        assert limits.flat is not None
        assert limits.frozen is not None
        assert limits.grain is not None
        assert found.contrast > 10 * limits.flat
        assert found.motion > 5 * limits.frozen, clip.request.prompt  # still clips too
        assert found.grain < limits.grain / 5
    lines = table(limits, good, spoil(family, good[-1]))
    assert [line.split(" | ")[-1].rstrip(" |") for line in lines[5:]] == [
        "NaN", "spread", "black", "flat", "frozen", "grain", "saturation",
    ]  # fmt: skip
