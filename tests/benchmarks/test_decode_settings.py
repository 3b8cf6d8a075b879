"""The benchmark of the autoencoder's settings, in its tiny form."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.command import main
from benchmarks.decode.__main__ import BENCHMARK, SETTINGS, TINY_CASES, psnr
from benchmarks.report import Result


@pytest.mark.slow
def test_the_tiny_form_decodes_with_shapes_and_with_the_layout_of_real_sizes(
    tmp_path: Path,
) -> None:
    main(BENCHMARK, [str(tmp_path / "decode"), "--tiny"])
    result = Result.read(tmp_path / "decode.json")
    assert tuple(result.cases) == TINY_CASES
    assert all(20 < case["psnr_db"]["least"] < 99 for case in result.cases.values())
    assert len(result.figures) == 2 * len(TINY_CASES)
    page = (tmp_path / "decode.md").read_text()
    assert page.count("\n| shapes-wan-4step: tiled | ") == 1


def test_the_psnr_of_one_level_is_48_db_and_equal_frames_have_99() -> None:
    grey = np.full((2, 4, 4, 3), 100, np.uint8)
    assert psnr(grey, grey) == 99
    assert psnr(grey, grey + 1) == pytest.approx(48.13, abs=0.01)


def test_each_setting_is_one_of_the_models_yaml() -> None:
    keys = {key for fields in SETTINGS.values() for key in fields}
    assert keys == {"vae_dtype", "vae_memory_format", "vae_compile", "vae_tiling"}
